#!/usr/bin/env python3
"""Trains the weights that `padim::Weights::Bundled` is: a ResNet18 up to layer3, on drawn scenes alone.

    python3 -m venv VENV && VENV/bin/pip install torch torchvision safetensors
    VENV/bin/python scripts/train_bundled/train.py --out trunk     # on a GPU: six minutes of an H200

The whole ResNet18 learns, with layer4, of which nothing is kept: what the layers below are for is then up to
them. It finds the other view of a scene among the views of all others (`contrast`). It may also be asked for
the kind of texture and the shape of the leaf at each place of layer4's map (`dense`), and for defects
(`all`), which made it no better: README.md beside this file.
"""

import argparse
import copy
import hashlib
import math
import re
import time
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file

from scenes import scenes
from textures import DEFECTS, SHAPES, bank

MEAN = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[None, :, None, None]
STRIDE = 32
# What is learnt, by name: the weights of kinds and shapes, of two views, and of defects.
LESSONS = {"dense": (1.0, 0.0, 0.0), "contrast": (0.0, 1.0, 0.0), "all": (1.0, 0.5, 0.5)}
# Features are saved at this share of their size, at which PaDiM's epsilon of 0.01 suits them better.
SIZE = 0.5


class Network(nn.Module):
    """torchvision's ResNet18 without its last layer, and what is asked of it."""

    def __init__(self, kinds):
        super().__init__()
        net = torchvision.models.resnet18(weights=None)
        self.trunk = nn.Module()
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
            setattr(self.trunk, name, getattr(net, name))
        self.layer4 = net.layer4
        self.sizes = [kinds, len(SHAPES), len(DEFECTS)]
        self.dense = nn.Sequential(
            nn.Conv2d(512, 512, 1), nn.ReLU(), nn.Conv2d(512, sum(self.sizes), 1)
        )
        self.project = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))

    def forward(self, x):
        t = self.trunk
        x = t.layer3(t.layer2(t.layer1(t.maxpool(t.relu(t.bn1(t.conv1(x)))))))
        x = self.layer4(x)
        return self.dense(x).split(self.sizes, 1), self.project(x.mean((2, 3)))


def dense_loss(outputs, targets, defects):
    """At the middle of each place of layer4's map; of defects, the one that lies anywhere near."""
    kind, shape, defect = (o.float() for o in outputs)
    at = lambda t: t[..., ::STRIDE, ::STRIDE]
    near = F.max_pool2d(targets["defect"].float(), STRIDE, STRIDE, STRIDE // 2)[:, 0].long()
    near = near[:, : defect.shape[2], : defect.shape[3]]
    k = F.cross_entropy(kind, at(targets["kind"][:, 0]).long())
    s = F.cross_entropy(shape, at(targets["shape"][:, 0]).long())
    d = F.cross_entropy(defect, near)
    return k + 0.5 * s + defects * d, {"kind": k, "shape": s, "defect": d}


def contrast_loss(one, two, temperature=0.2):
    """Each view is to find the other one of its scene among all."""
    z = F.normalize(torch.cat([one, two]).float(), dim=1)
    alike = z @ z.T / temperature
    alike.fill_diagonal_(-1e9)
    n = len(one)
    return F.cross_entropy(alike, torch.arange(2 * n, device=z.device).roll(n))


def view(image, targets, size):
    """A part of each scene, turned, mirrored and enlarged, in other colours, through another camera."""
    B, device = len(image), image.device
    u = lambda low, high, *shape: low + (high - low) * torch.rand((B, *shape), device=device)
    zoom, t = torch.exp2(u(-1.3, 0.0)), u(0, 2 * math.pi)
    mirror = (u(0, 1) < 0.5).float() * 2 - 1
    squeeze = torch.exp2(u(-0.2, 0.2))
    room = 1 - zoom
    rows = [
        torch.stack([mirror * squeeze * zoom * t.cos(), -zoom * t.sin(), room * u(-1, 1)], 1),
        torch.stack([mirror * squeeze * zoom * t.sin(), zoom * t.cos(), room * u(-1, 1)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), (B, 1, size, size), align_corners=False)
    warped = lambda x, mode: F.grid_sample(
        x, grid, mode=mode, padding_mode="reflection", align_corners=False
    )
    x = warped(image, "bilinear")
    labels = warped(torch.stack([v.float() for v in targets.values()], 1), "nearest")
    targets = {name: labels[:, i : i + 1] for i, name in enumerate(targets)}
    # Colours.
    order = torch.rand((B, 3), device=device).argsort(1)
    x = x.gather(1, order[:, :, None, None].expand_as(x))
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * torch.where(u(0, 1) < 0.25, 0.0, u(0.3, 1.3))[:, None, None, None]
    x = torch.where((u(0, 1) < 0.1)[:, None, None, None], 1 - x, x)
    middle = x.mean((1, 2, 3), keepdim=True)
    x = middle + (x - middle) * u(0.5, 1.4, 1, 1, 1) + u(-0.2, 0.2, 1, 1, 1) + u(-0.1, 0.1, 3, 1, 1)
    # Dust, which is no defect.
    share = torch.where(u(0, 1) < 0.5, 0.0, u(0, 0.004))[:, None, None, None]
    dust = (torch.rand((B, 1, size, size), device=device) < share).float()
    x = x * (1 - dust) + dust * u(0, 1, 1, 1, 1)
    # Out of focus, and noise.
    sigma = torch.where(u(0, 1) < 0.5, 0.15, u(0.15, 1.3))[:, None]
    taps = torch.exp(-0.5 * (torch.arange(-3, 4, device=device) / sigma) ** 2)
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None, None]
    flat = F.pad(x.reshape(1, B * 3, size, size), (3, 3, 3, 3), mode="replicate")
    flat = F.conv2d(F.conv2d(flat, taps, groups=B * 3), taps.transpose(2, 3), groups=B * 3)
    x = flat.view(B, 3, size, size)
    x = x + 0.06 * u(0, 1, 1, 1, 1) ** 2 * torch.randn_like(x)
    return x.clamp(0, 1), targets


def normalised(image):
    x = (image - MEAN.to(image.device)) / STD.to(image.device)
    return x.contiguous(memory_format=torch.channels_last)


def calibrate(network, tiles, draws, device, size=224, batches=8):
    """Statistics of the batch norms on pictures of the size in use."""
    g = torch.Generator(device).manual_seed(7)
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.reset_running_stats()
            m.momentum = None
    network.train()
    with torch.no_grad():
        for _ in range(batches):
            image, _ = scenes(g, tiles, draws, 32, size, device)
            network(normalised(image))
    network.eval()


def save(trunk, path, settings):
    """In torchvision's layout: filters in 16 bits, norms in 32. What the layers give out is made `SIZE`
    times as large, and what is inside of blocks left as it is."""
    gives_out = re.compile(r"^bn1|bn2|downsample\.1")
    takes_in = re.compile(r"layer\d\.\d\.conv1|downsample\.0")
    tensors = {}
    for name, value in trunk.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            value = value.float().cpu().contiguous()
            if gives_out.search(name) and name.endswith(("weight", "bias")):
                value = value * SIZE
            if takes_in.search(name):
                value = value / SIZE
            tensors[name] = value.half() if value.ndim == 4 else value
    # One entry, as several come in any order.
    origin = f"padim's scripts/train_bundled: ResNet18 up to layer3, MIT, {settings}"
    save_file(tensors, path, {"origin": origin})
    print(path, hashlib.sha256(Path(path).read_bytes()).hexdigest(), flush=True)


class Pupil:
    """A network that learns a lesson."""

    def __init__(self, name, a, device):
        self.name, self.smooth = name, {}
        self.lesson = LESSONS[name]
        torch.manual_seed(a.seed)
        self.network = Network(a.kinds).to(device, memory_format=torch.channels_last)
        ema = torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
        self.average = torch.optim.swa_utils.AveragedModel(self.network, multi_avg_fn=ema)
        self.parameters = list(self.network.parameters())
        groups = [
            {"params": [q for q in self.parameters if q.ndim > 1], "weight_decay": 0.05},
            {"params": [q for q in self.parameters if q.ndim <= 1], "weight_decay": 0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=a.lr, fused=device == "cuda")

    def learn(self, views, rate, device):
        dense, contrast, defects = self.lesson
        one, targets = views[0]
        with torch.autocast(device, dtype=torch.bfloat16):
            answers, z = self.network(normalised(one))
            other = self.network(normalised(views[1][0]))[1] if contrast else None
        loss, parts = 0, {}
        if dense:
            asked, parts = dense_loss(answers, targets, defects)
            loss = loss + dense * asked
        if contrast:
            parts["contrast"] = contrast_loss(z, other)
            loss = loss + contrast * parts["contrast"]
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([q for q in self.parameters if q.grad is not None], 5.0)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        for name, value in parts.items():
            value = value.detach()
            self.smooth[name] = 0.98 * self.smooth.get(name, value) + 0.02 * value


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--out", required=True, help="the files are OUT-LESSON-STEP.safetensors")
    p.add_argument("--lessons", default="contrast", help=f"of {', '.join(LESSONS)}, with commas")
    p.add_argument("--steps", type=int, default=2920)
    p.add_argument("--save", default="1", help="after which shares of them it is saved")
    p.add_argument("--batch", type=int, default=512)
    p.add_argument("--scene", type=int, default=160, help="side of a scene in pixels")
    p.add_argument("--size", type=int, default=112, help="side of a view in pixels")
    p.add_argument("--kinds", type=int, default=1022)
    p.add_argument("--draws", type=int, default=6, help="tiles of each kind")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    tiles = bank(a.kinds, a.draws, a.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    print(f"{vars(a)} torch {torch.__version__} on {device}", flush=True)
    tiles = tiles.to(device)
    g = torch.Generator(device).manual_seed(a.seed + 1)
    pupils = [Pupil(name, a, device) for name in a.lessons.split(",")]
    torch.manual_seed(a.seed + 2)
    marks = {round(float(share) * a.steps) for share in a.save.split(",")}
    settings = {name: value for name, value in vars(a).items() if name != "out"}
    start = time.time()
    for step in range(1, a.steps + 1):
        cosine = 0.5 + 0.5 * math.cos(math.pi * (step - 1) / a.steps)
        rate = a.lr * min(1, step / 200) * cosine + 1e-5
        with torch.no_grad():
            image, targets = scenes(g, tiles, a.draws, a.batch, a.scene, device)
            views = [view(image, targets, a.size) for _ in range(2)]
        for pupil in pupils:
            pupil.learn(views, rate, device)
            if step % 100 == 0 or step in marks:
                parts = sorted(pupil.smooth.items())
                text = " ".join(f"{name} {float(value):.3f}" for name, value in parts)
                print(f"{step} {time.time() - start:.0f}s {pupil.name} {text}", flush=True)
            if step in marks:
                whole = copy.deepcopy(pupil.average.module)
                calibrate(whole, tiles, a.draws, device)
                save(whole.trunk, f"{a.out}-{pupil.name}-{step}.safetensors", str(settings))


if __name__ == "__main__":
    main()
