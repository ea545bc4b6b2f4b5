"""A PaDiM that was fitted and saved by anomalib, and anomalib's results for three pictures.

    python make_anomalib.py      (anomalib 2.7 with torch, timm and lightning)

Writes to the folder anomalib:

padim.ckpt          a Lightning checkpoint of anomalib's Engine, with a narrow ResNet18 (4, 6 and 8
                    channels after timm's stem of 64), 8 of 18 channels, input 64x48; fitted to 12
                    drawn pictures, thresholds from 4 others, half of them with a defect
0.png .. 2.png      pictures of 80x60 pixels: good, a small defect, a larger defect
expected.safetensors  for these pictures: map and score of the model; normalized and label of the
                    post-processor
malicious.pt        a state dict with the same layout and a smaller network, plus objects that run a
                    command when Python unpickles them (`touch pickle-was-executed`)
malicious_mean.pt   the same, with such an object in place of the means

Weights follow a formula, as in make_efficientnet.py.
"""

import os
import tempfile

import numpy as np
import timm
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Padim
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from safetensors.numpy import save_file
from timm.models.resnet import BasicBlock, ResNet
from torchvision.transforms.v2.functional import to_dtype, to_image

from formula import uniform

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "anomalib")


def weight(name, shape):
    u = uniform(name, int(np.prod(shape)))
    if len(shape) == 4:
        values = (2 * u - 1) * np.sqrt(6 / np.prod(shape[1:]))
    elif name.endswith((".weight", ".running_var")):
        values = 0.5 + u
    else:
        values = 0.2 * (2 * u - 1)
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def fill(network):
    state = network.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = weight(name, tuple(tensor.shape))
    network.load_state_dict(state)


def narrow(features_only=False, exportable=False, out_indices=None, **_):
    """Replaces timm's resnet18: the same class with few channels."""
    network = ResNet(BasicBlock, [2, 2, 2, 2], channels=(4, 6, 8, 10), num_classes=2)
    return timm.models._features.FeatureListNet(network, out_indices=out_indices or (0, 1, 2, 3, 4))


def picture(number, defect=0):
    y, x = np.mgrid[0:60, 0:80]
    waves = [120 + 60 * np.sin(x / 9 + number / 20), 100 + 50 * np.cos(y / 7), 90 + x / 2]
    noise = np.random.default_rng(number).normal(0, 4, (60, 80, 3))
    values = np.stack(waves, -1) + noise
    values[20 : 20 + defect, 30 : 30 + defect] = [250, 20, 20]
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def fitted(folder):
    kinds = [("good", range(12), 0), ("fine", (20, 21), 0), ("bad", (22, 23), 14)]
    for name, numbers, defect in kinds:
        os.makedirs(f"{folder}/{name}")
        for number in numbers:
            picture(number, defect).save(f"{folder}/{name}/{number}.png")
    data = Folder(
        name="drawn", root=folder, normal_dir="good", normal_test_dir="fine", abnormal_dir="bad",
        train_batch_size=4, eval_batch_size=4, num_workers=0,
    )
    model = Padim(
        backbone="resnet18", pre_trained=False, n_features=8, visualizer=False,
        pre_processor=Padim.configure_pre_processor(image_size=(64, 48)),
    )
    fill(model.model.feature_extractor.feature_extractor)
    engine = Engine(default_root_dir=folder, accelerator="cpu", logger=False)
    engine.fit(model, datamodule=data)
    # This callback would write folder names to the checkpoint.
    callbacks = engine.trainer.callbacks
    engine.trainer.callbacks = [c for c in callbacks if not isinstance(c, ModelCheckpoint)]
    engine.trainer.save_checkpoint(f"{OUT}/padim.ckpt")
    return model.eval()


def expected(model):
    found = {"map": [], "score": [], "normalized": [], "label": []}
    for number, defect in enumerate((0, 12, 18)):
        drawn = picture(20 + number, defect)
        drawn.save(f"{OUT}/{number}.png", optimize=True)
        with torch.no_grad():
            # As in the Engine. (Exported models resize without antialiasing.)
            float_image = to_dtype(to_image(drawn), torch.float32, scale=True)
            ready = model.pre_processor.transform(float_image[None])
            raw = model.model(ready)
            final = model.post_processor(raw)
        found["map"].append(raw.anomaly_map[0, 0].numpy())
        found["score"].append(raw.pred_score.reshape(()).numpy())
        found["normalized"].append(final.pred_score.reshape(()).numpy())
        found["label"].append(final.pred_label.reshape(()).numpy().astype(np.uint8))
    print({name: np.array(v) for name, v in found.items() if name != "map"})
    save_file({name: np.stack(v) for name, v in found.items()}, f"{OUT}/expected.safetensors")


class Malicious:
    def __reduce__(self):
        return os.system, ("touch pickle-was-executed",)


def malicious():
    """One block per layer, 8x8 pixels, 2x2 positions, 2 dimensions."""
    shapes = {"conv1": [4, 3, 7, 7]}
    for layer, (before, planes) in enumerate([(4, 4), (4, 6), (6, 8)], 1):
        shapes[f"layer{layer}.0.conv1"] = [planes, before, 3, 3]
        shapes[f"layer{layer}.0.conv2"] = [planes, planes, 3, 3]
        if before != planes:
            shapes[f"layer{layer}.0.downsample.0"] = [planes, before, 1, 1]
    state = {}
    for name, shape in shapes.items():
        norm = name[:-1] + "1" if "downsample" in name else name.replace("conv", "bn")
        state[f"{name}.weight"] = weight(f"{name}.weight", shape)
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{part}"] = weight(f"{norm}.{part}", [shape[0]])
    state = {f"model.feature_extractor.feature_extractor.{name}": v for name, v in state.items()}
    state["model.idx"] = torch.tensor([3, 17])
    state["model.gaussian.mean"] = torch.tensor([[0.0, 0.1, 0.2, 0.3], [1.0, 1.1, 1.2, 1.3]])
    state["model.gaussian.inv_covariance"] = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).repeat(4, 1, 1)
    beside = {"hyper_parameters": {"layers": ["layer1", "layer2", "layer3"], "more": Malicious()}}
    torch.save({"first": Malicious(), "state_dict": state, **beside}, f"{OUT}/malicious.pt")
    state["model.gaussian.mean"] = Malicious()
    torch.save({"state_dict": state}, f"{OUT}/malicious_mean.pt")


os.makedirs(OUT, exist_ok=True)
torch.manual_seed(5)
timm.models._registry._model_entrypoints["resnet18"] = narrow
with tempfile.TemporaryDirectory() as folder:
    expected(fitted(folder))
malicious()
