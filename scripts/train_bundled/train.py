#!/usr/bin/env python3
"""Trains the weights that `padim::Weights::Bundled` is: a ResNet18 up to layer3, on drawn scenes alone.

    python3 -m venv VENV && VENV/bin/pip install torch torchvision safetensors
    VENV/bin/python scripts/train_bundled/train.py --out trunk     # on a GPU if there is one

Each place of each layer's map is asked, by one linear map: which kind of texture is here, which shape is the
leaf, is there a defect and which, and some numbers (how the tile is turned and scaled, how far the edge is,
colour and contrast). README.md beside this file says with what settings the bundled file was made.
"""

import argparse
import copy
import hashlib
import math
import time
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file

from scenes import NUMBERS, scenes
from textures import DEFECTS, SHAPES, bank

MEAN = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[None, :, None, None]
STRIDES = (4, 8, 16)
CHANNELS = (64, 128, 256)
LAYER_WEIGHTS = (0.3, 0.6, 1.0)


class Trunk(nn.Module):
    """torchvision's ResNet18 up to layer3."""

    def __init__(self):
        super().__init__()
        net = torchvision.models.resnet18(weights=None)
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
            setattr(self, name, getattr(net, name))

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        a = self.layer1(x)
        b = self.layer2(a)
        return [a, b, self.layer3(b)]


class Heads(nn.Module):
    """What is asked of the features of each layer, by one linear map at each place."""

    def __init__(self, kinds, drop):
        super().__init__()
        # The last are the scene's numbers, mean and deviation of each colour.
        self.sizes = [kinds, len(SHAPES), len(DEFECTS), NUMBERS + 6]
        self.maps = nn.ModuleList(nn.Conv2d(c, sum(self.sizes), 1) for c in CHANNELS)
        # PaDiM draws channels at random: any of them must do.
        self.drop = nn.Dropout2d(drop)

    def forward(self, features):
        return [m(self.drop(f)).split(self.sizes, 1) for m, f in zip(self.maps, features)]


def losses(outputs, image, targets):
    """The sum, and each part by its name."""
    balance = torch.tensor([0.3] + [1.0] * (len(DEFECTS) - 1), device=image.device)
    total, parts = 0, {}
    for layer, (output, stride) in enumerate(zip(outputs, STRIDES)):
        kind, shape, defect, numbers = (o.float() for o in output)
        middle = lambda t: t[..., stride // 2 :: stride, stride // 2 :: stride]
        worst = F.max_pool2d(targets["defect"].float()[:, None], stride)[:, 0].long()
        mean = F.avg_pool2d(image, stride)
        spread = (F.avg_pool2d(image * image, stride) - mean * mean).clamp_min(1e-5).sqrt()
        truth = torch.cat([middle(targets["numbers"]), mean * 3, spread * 10], 1)
        k = F.cross_entropy(kind, middle(targets["kind"]))
        s = F.cross_entropy(shape, middle(targets["shape"]))
        d = F.cross_entropy(defect, worst, balance)
        n = F.smooth_l1_loss(numbers, truth)
        # Kinds cannot be told apart by what layer1 sees.
        total = total + LAYER_WEIGHTS[layer] * ((2 * k if layer else 0) + 0.5 * s + d + 2 * n)
        parts.update(
            {
                f"{name}{layer + 1}": v.detach()
                for name, v in zip(("kind", "shape", "defect", "numbers"), (k, s, d, n))
            }
        )
    return total, parts


def calibrate(trunk, tiles, draws, device, size=224, batches=8):
    """Statistics of the batch norms on pictures of the size in use."""
    g = torch.Generator(device).manual_seed(7)
    for m in trunk.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.reset_running_stats()
            m.momentum = None
    trunk.train()
    with torch.no_grad():
        for _ in range(batches):
            image, _ = scenes(g, tiles, draws, 16, size, device)
            trunk((image - MEAN.to(device)) / STD.to(device))
    trunk.eval()


def save(trunk, path, settings):
    """In torchvision's layout: filters in 16 bits, norms in 32."""
    tensors = {}
    for name, value in trunk.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            value = value.float().cpu().contiguous()
            tensors[name] = value.half() if value.ndim == 4 else value
    # One entry, as several come in any order.
    origin = f"padim's scripts/train_bundled: ResNet18 up to layer3, MIT, {settings}"
    save_file(tensors, path, {"origin": origin})
    print(path, hashlib.sha256(Path(path).read_bytes()).hexdigest(), flush=True)


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--out", required=True, help="the files are OUT-STEP.safetensors")
    p.add_argument("--steps", type=int, default=6000)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--size", type=int, default=96, help="side of a scene in pixels")
    p.add_argument("--kinds", type=int, default=168)
    p.add_argument("--draws", type=int, default=10, help="tiles of each kind")
    p.add_argument("--reuse", type=int, default=2, help="how often each batch of scenes is used")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument(
        "--drop", type=float, default=0.2, help="share of channels that the heads do not see"
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--save-every", type=int, default=500)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--bank", help="a file to keep the tiles in")
    a = p.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.set_flush_denormal(True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{vars(a)} torch {torch.__version__} on {device}", flush=True)
    torch.manual_seed(a.seed)
    if a.bank and Path(a.bank).exists():
        tiles = torch.load(a.bank)
    else:
        tiles = bank(a.kinds, a.draws, a.seed)
        if a.bank:
            torch.save(tiles, a.bank)
    tiles = tiles.to(device)
    g, host = torch.Generator(device).manual_seed(a.seed + 1), torch.Generator().manual_seed(
        a.seed + 2
    )
    trunk = Trunk().to(device, memory_format=torch.channels_last)
    heads = Heads(a.kinds, a.drop).to(device)
    ema = torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
    average = torch.optim.swa_utils.AveragedModel(trunk, multi_avg_fn=ema)
    parameters = [*trunk.parameters(), *heads.parameters()]
    groups = [
        {"params": [q for q in parameters if q.ndim > 1], "weight_decay": 0.05},
        {"params": [q for q in parameters if q.ndim <= 1], "weight_decay": 0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=a.lr)
    rate = (
        lambda step: min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / a.steps))
        + 1e-3
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    smooth, kept, start = {}, [], time.time()
    for step in range(a.steps):
        # Drawing takes as long as learning on a CPU: a batch is used again later, its colours exchanged.
        if step % a.reuse == 0 or len(kept) < 8:
            with torch.no_grad():
                kept = [*kept[-31:], scenes(g, tiles, a.draws, a.batch, a.size, device)]
            image, targets = kept[-1]
        else:
            image, targets = kept[int(torch.randint(len(kept) - 1, (), generator=host))]
            image = image[:, torch.randperm(3, generator=host)]
        x = ((image - MEAN.to(device)) / STD.to(device)).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast(device, dtype=torch.bfloat16):
            outputs = heads(trunk(x))
        loss, parts = losses(outputs, image, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(trunk)
        for name, value in parts.items():
            smooth[name] = 0.98 * smooth.get(name, value) + 0.02 * value
        if (step + 1) % 100 == 0:
            text = " ".join(f"{name} {float(value):.3f}" for name, value in sorted(smooth.items()))
            print(f"{step + 1} {time.time() - start:.0f}s {text}", flush=True)
        if (step + 1) % a.save_every == 0 or step + 1 == a.steps:
            whole = copy.deepcopy(average.module)
            calibrate(whole, tiles, a.draws, device)
            save(whole, f"{a.out}-{step + 1}.safetensors", str(vars(a)))


if __name__ == "__main__":
    main()
