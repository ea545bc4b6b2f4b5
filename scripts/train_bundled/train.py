#!/usr/bin/env python3
"""Trains the weights that `padim::Weights::Bundled` is: a ResNet18 up to layer3, on drawn scenes alone.

    python3 -m venv VENV && VENV/bin/pip install torch torchvision safetensors
    VENV/bin/python scripts/train_bundled/train.py --out trunk     # on a GPU: minutes of an H200

The whole ResNet18 learns, with layer4, of which nothing is kept: what the layers below are for is then up to
them. It finds the other view of a scene among the views of all others (SimCLR). README.md beside this file
says how the weights in the crate were made, and what else was tried.
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
from safetensors.torch import load_file, save_file

from scenes import scenes
from textures import bank

MEAN = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[None, :, None, None]
# Features are saved at this share of their size, at which PaDiM's epsilon of 0.01 suits them better.
SIZE = 0.5


class Network(nn.Module):
    """torchvision's ResNet18 without its last layer, and a projection for telling views apart."""

    def __init__(self):
        super().__init__()
        net = torchvision.models.resnet18(weights=None)
        self.trunk = nn.Sequential()
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
            self.trunk.add_module(name, getattr(net, name))
        self.layer4 = net.layer4
        self.project = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))

    def forward(self, x):
        return self.project(self.layer4(self.trunk(x)).mean((2, 3)))


def contrast_loss(one, two, temperature=0.2):
    """Each view is to find the other one of its scene among all."""
    z = F.normalize(torch.cat([one, two]).float(), dim=1)
    alike = z @ z.T / temperature
    alike.fill_diagonal_(-1e9)
    n = len(one)
    return F.cross_entropy(alike, torch.arange(2 * n, device=z.device).roll(n))


def fields(B, size, device):
    """Smooth noise of deviation 1, stretched along any direction, `[B, 1, size, size]`."""
    u = lambda low, high: low + (high - low) * torch.rand(B, device=device)
    along, across, t = torch.exp2(u(-4, -1)), torch.exp2(u(-4, -1)), u(0, 2 * math.pi)
    rows = [
        torch.stack([along * t.cos(), -along * t.sin(), u(-0.4, 0.4)], 1),
        torch.stack([across * t.sin(), across * t.cos(), u(-0.4, 0.4)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), (B, 1, size, size), align_corners=False)
    noise = torch.randn((B, 1, 16, 16), device=device)
    return F.grid_sample(
        noise, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )


def uneven(image):
    """The same scene in uneven light, its textures here stronger and there weaker: what changes from one
    good part to the next."""
    B, _, size, _ = image.shape
    device = image.device
    u = lambda low, high: low + (high - low) * torch.rand((B, 1, 1, 1), device=device)
    some = lambda share: (torch.rand((B, 1, 1, 1), device=device) < share).float()
    window = 2 * int(torch.randint(3, 9, ())) + 1
    padded = F.pad(image, (window // 2,) * 4, mode="reflect")
    around = F.avg_pool2d(padded, window, 1)
    relief = torch.exp(some(0.6) * u(0, 0.7) * fields(B, size, device))
    light = torch.exp(some(0.6) * u(0, 0.35) * fields(B, size, device))
    return ((around + (image - around) * relief) * light).clamp(0, 1)


def view(image, size):
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
    x = F.grid_sample(
        uneven(image), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
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
    return x.clamp(0, 1)


def normalised(image):
    x = (image - MEAN.to(image.device)) / STD.to(image.device)
    return x.contiguous(memory_format=torch.channels_last)


class Scenes:
    """Batches of scenes `[B, 3, side, side]`, of which so many are new each time, and all others among the
    last `KEPT`: drawing them can take longer than learning from them."""

    KEPT = 1024

    def __init__(self, a, device):
        self.a, self.device, self.next = a, device, 0
        self.tiles = bank(a.kinds, a.draws, a.seed).to(device)
        self.generator = torch.Generator(device).manual_seed(a.seed + 1)
        self.kept = None
        if a.fresh < a.batch:
            self.kept = torch.cat([self.draw(16) for _ in range(self.KEPT // 16)])

    def draw(self, count):
        image = scenes(self.generator, self.tiles, count, self.a.scene, self.device)
        return (image * 255).round().to(torch.uint8)

    def batch(self):
        a = self.a
        fresh = self.draw(a.fresh)
        if self.kept is None:
            return fresh.float() / 255
        self.kept[torch.arange(self.next, self.next + a.fresh) % self.KEPT] = fresh
        self.next = (self.next + a.fresh) % self.KEPT
        return self.kept[torch.randint(self.KEPT, (a.batch,))].float() / 255


def calibrate(network, tiles, device, size=224, batches=8):
    """Statistics of the batch norms on pictures of the size in use."""
    g = torch.Generator(device).manual_seed(7)
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.reset_running_stats()
            m.momentum = None
    network.train()
    with torch.no_grad():
        for _ in range(batches):
            network(normalised(scenes(g, tiles, 32, size, device)))
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


def learn(a, network, average, parameters, steps, rate, batches, device, whole):
    """Some parameters learn; everything else stays as it is, and its norms with it."""
    groups = [
        {"params": [q for q in parameters if q.ndim > 1], "weight_decay": 0.05},
        {"params": [q for q in parameters if q.ndim <= 1], "weight_decay": 0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, fused=device == "cuda")
    marks = {round(float(share) * steps) for share in a.save.split(",")} if whole else set()
    network.train()
    network.trunk.train(whole)
    settings = {name: value for name, value in vars(a).items() if name != "out"}
    smooth, start = None, time.time()
    for step in range(1, steps + 1):
        cosine = 0.5 + 0.5 * math.cos(math.pi * (step - 1) / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, step / a.warm_up) * cosine + 1e-6
        with torch.no_grad():
            image = batches.batch()
            views = torch.cat([view(image, a.size) for _ in range(2)])
        with torch.autocast(device, dtype=torch.bfloat16):
            one, two = network(normalised(views)).chunk(2)
        loss = contrast_loss(one, two)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        average.update_parameters(network)
        loss = loss.detach()
        smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
        if step % 100 == 0 or step in marks:
            print(f"{step} {time.time() - start:.0f}s contrast {float(smooth):.3f}", flush=True)
        if step in marks:
            smoothed = copy.deepcopy(average.module)
            calibrate(smoothed, batches.tiles, device)
            save(smoothed.trunk, f"{a.out}-{step}.safetensors", str(settings))


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--out", required=True, help="the files are OUT-STEP.safetensors")
    p.add_argument("--start", help="weights to go on from [default: random ones]")
    p.add_argument("--head-steps", type=int, default=0, help="in which only layer4 learns, before")
    p.add_argument("--steps", type=int, default=2920)
    p.add_argument("--save", default="1", help="after which shares of them it is saved")
    p.add_argument("--batch", type=int, default=512)
    p.add_argument("--fresh", type=int, help="how many scenes of a batch are new [default: all]")
    p.add_argument("--scene", type=int, default=160, help="side of a scene in pixels")
    p.add_argument("--size", type=int, default=112, help="side of a view in pixels")
    p.add_argument("--kinds", type=int, default=1022)
    p.add_argument("--draws", type=int, default=6, help="tiles of each kind")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--warm-up", type=int, default=200, help="steps in which the rate rises")
    p.add_argument("--average", type=float, default=0.998, help="of weights, what a step keeps")
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    a.fresh = a.fresh or a.batch
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    print(f"{vars(a)} torch {torch.__version__} on {device}", flush=True)
    batches = Scenes(a, device)
    torch.manual_seed(a.seed + 2)
    network = Network()
    if a.start:
        own = network.trunk.state_dict()
        own.update({name: value.float() for name, value in load_file(a.start).items()})
        network.trunk.load_state_dict(own)
    network = network.to(device, memory_format=torch.channels_last)
    ema = torch.optim.swa_utils.get_ema_multi_avg_fn(a.average)
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=ema)
    head = [*network.layer4.parameters(), *network.project.parameters()]
    if a.head_steps:
        network.trunk.requires_grad_(False)
        learn(a, network, average, head, a.head_steps, 2e-3, batches, device, False)
        network.trunk.requires_grad_(True)
    learn(a, network, average, list(network.parameters()), a.steps, a.lr, batches, device, True)


if __name__ == "__main__":
    main()
