"""Golden values of torchvision's EfficientNet-B5, and of a tiny EfficientNet with its checkpoints.

    python make_efficientnet.py      (numpy, torch, torchvision, safetensors)

Weights and inputs follow a formula, so that no weights are stored. For a name and an index i into the
row-major values,

    seed    = FNV-1a, 64 bits, of the name
    z       = seed + (i + 1) * 0x9E3779B97F4A7C15 modulo 2^64, then the three steps of splitmix64
    u(i)    = the upper 24 bits of z, divided by 2^24: uniform in [0, 1)

The name of a weight is its key in the state dict; all are rounded to f32:

    rank 4 (convolutions)                       (2u - 1) * sqrt(4 / (channels_in per group * kernel area))
    rank 2 (classifier)                         (2u - 1) * sqrt(4 / channels_in)
    batch norms' weight and running_var         0.5 + u
    all other (biases, running_mean)            0.2 * (2u - 1)

With these weights, the standard deviations of the features stay between 0.1 and 10 through 26 blocks, also
within channels; this script checks it. With the factor 6 of make_golden.py, they would grow to hundreds, and
torch itself in f32 would differ by 1e-3. The input of shape S is 4u - 2 with the name "input:1x3x224x224".

backbone_efficientnet_b5.safetensors and efficientnet_tiny_out.safetensors hold for each input and node, as
<input>/<node>/<part>: shape; stats (mean, mean magnitude, standard deviation, minimum, maximum, L2 norm, and
the probe sum x(i) * (2u(i) - 1) with the name "probe"); idx and val (values at floor(u(k) * count) with the
name "sample"). Everything is computed in f64. The node "block7" is the seventh block, counted from 1.
"""

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors
from torchvision.models import efficientnet_b5
from torchvision.models.efficientnet import EfficientNet, MBConvConfig

from formula import uniform


def weight(name, shape):
    u = uniform(name, int(np.prod(shape)))
    if len(shape) in (2, 4):
        values = (2 * u - 1) * np.sqrt(4 / np.prod(shape[1:]))
    elif name.endswith((".weight", ".running_var")):
        values = 0.5 + u
    else:
        values = 0.2 * (2 * u - 1)
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def fill(network):
    """Fills every tensor, except the counters of batch norms, by its formula."""
    state = network.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = weight(name, tuple(tensor.shape))
    network.load_state_dict(state)
    return network.eval()


def image(shape):
    u = uniform("input:" + "x".join(map(str, shape)), int(np.prod(shape)))
    return torch.from_numpy((4 * u - 2).astype(np.float32).reshape(shape))


def nodes(network, x, blocks):
    """The stem and some blocks, counted from 1 through all stages."""
    stem, *stages = network.features
    x = stem(x)
    found = {"stem": x}
    for number, block in enumerate((block for stage in stages[:-1] for block in stage), 1):
        x = block(x)
        if number in blocks:
            found[f"block{number}"] = x
        if number == max(blocks):
            return found


def describe(values, samples):
    values = values.numpy().ravel()
    indices = np.floor(uniform("sample", samples) * values.size).astype(np.int32)
    probe = (values * (2 * uniform("probe", values.size) - 1)).sum()
    stats = [values.mean(), np.abs(values).mean(), values.std(), values.min(), values.max()]
    return {
        "stats": np.array(stats + [np.linalg.norm(values), probe]),
        "idx": indices,
        "val": values[indices],
    }


def run(network, shapes, blocks, taps, file):
    tensors = {}
    for shape in shapes:
        with torch.no_grad():
            single = nodes(network.float(), image(shape), blocks)
            double = nodes(network.double(), image(shape).double(), blocks)
        for name, values in double.items():
            error = (single[name].double() - values).abs().max() / values.abs().max()
            spread, within = float(values.std()), float(values.std((2, 3)).mean())
            print(shape, name, f"std {spread:.2g}, in channels {within:.2g}, f32 {error:.1e}")
            assert 0.1 < spread < 10 and within > 0.05, "the formula does not fit this network"
            prefix = "x".join(map(str, shape)) + f"/{name}/"
            tensors[prefix + "shape"] = np.array(values.shape)
            parts = describe(values, 64 if name in taps else 16)
            tensors |= {prefix + part: numbers for part, numbers in parts.items()}
    save_file(tensors, file)
    network.float()


def tiny():
    """torchvision's class with few channels: a stage of one block with expansion 1, and one of two blocks."""
    stages = [MBConvConfig(1, 3, 1, 8, 8, 1), MBConvConfig(2, 5, 2, 8, 16, 2)]
    norm = lambda channels: torch.nn.BatchNorm2d(channels, eps=1e-3)
    return EfficientNet(stages, dropout=0, num_classes=2, norm_layer=norm, last_channel=8)


network = fill(efficientnet_b5(weights=None))
shapes = [(1, 3, 224, 224), (2, 3, 64, 64), (1, 3, 97, 131)]
taps = {f"block{number}" for number in (7, 20, 26)}
run(network, shapes, {1, 2, 4, 7, 9, 20, 26}, taps, "backbone_efficientnet_b5.safetensors")

network = fill(tiny())
save_tensors(network.state_dict(), "loader/efficientnet_tiny.safetensors")
torch.save(network.state_dict(), "loader/efficientnet_tiny.pth")
run(network, [(2, 3, 45, 37)], {1, 2, 3}, {}, "efficientnet_tiny_out.safetensors")
