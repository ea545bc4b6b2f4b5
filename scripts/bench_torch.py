#!/usr/bin/env python3
"""Times PaDiM's predictions in PyTorch, for comparison with `cargo bench --bench devices`. Prints one line
of JSON for each way and batch size.

    python scripts/bench_torch.py [--device cuda] [--network wide_resnet50] [--batches 1,8,32,128]

Ways: `eager`; `f16` (the network in f16 with channels last, distances in f32); `compile` (torch.compile of
the network). Everything else is the same for all: embedding, distances by the full inverse, bilinear
resizing of the map, Gaussian blur. Images start in the CPU's memory, and maps and scores are copied back.
"""
import argparse
import json
import random
import statistics
import time

import torch
import torch.nn.functional as F
import torchvision

CHANNELS = {"resnet18": (448, 100), "wide_resnet50": (1792, 550)}


class Network(torch.nn.Module):
    """torchvision's network up to layer3."""

    def __init__(self, name):
        super().__init__()
        net = getattr(torchvision.models, name + ("_2" if name.startswith("wide") else ""))(weights=None)
        self.stem = torch.nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.layers = torch.nn.ModuleList([net.layer1, net.layer2, net.layer3])

    def forward(self, x):
        x = self.stem(x)
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps


class Tail:
    """Everything after the network: from feature maps to anomaly maps."""

    def __init__(self, name, side, fit, network, device):
        count, kept = CHANNELS[name]
        self.indices = torch.tensor(random.Random(1024).sample(range(count), kept), device=device)
        self.side = side
        radius = 16
        kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / 4) ** 2)
        self.kernel = (kernel / kernel.sum()).float().to(device)
        chunks = [self.embed(network(torch.randn(8, 3, side, side, device=device))) for _ in range(0, fit, 8)]
        vectors = torch.cat(chunks)  # [images, dimension, positions]
        self.mean = vectors.mean(0)
        inverses = []
        for x in (vectors - self.mean).permute(2, 1, 0).split(64):
            covariance = x.double() @ x.double().transpose(1, 2) / (len(vectors) - 1)
            covariance += 0.01 * torch.eye(kept, dtype=torch.float64, device=device)
            inverses.append(torch.cholesky_inverse(torch.linalg.cholesky(covariance)).float())
        self.inverse = torch.cat(inverses)

    def embed(self, maps):
        size = maps[0].shape[-2:]
        aligned = [maps[0]] + [F.interpolate(m, size, mode="nearest") for m in maps[1:]]
        return torch.cat(aligned, 1).index_select(1, self.indices).flatten(2).float()

    def __call__(self, maps):
        height, width = maps[0].shape[-2:]
        x = (self.embed(maps) - self.mean).permute(2, 0, 1)  # [positions, batch, dimension]
        squared = ((x @ self.inverse) * x).sum(2)
        grid = squared.clamp_min(0).sqrt().T.reshape(-1, 1, height, width)
        image = F.interpolate(grid, (self.side, self.side), mode="bilinear", align_corners=False)
        radius = len(self.kernel) // 2
        image = F.pad(image, [radius] * 4, mode="reflect")
        image = F.conv2d(F.conv2d(image, self.kernel.view(1, 1, 1, -1)), self.kernel.view(1, 1, -1, 1))
        maps = image.squeeze(1)
        return maps.cpu(), maps.amax((1, 2)).cpu()


def median_ms(work, seconds):
    for _ in range(3):
        work()
    times, begin = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--network", default="resnet18", choices=CHANNELS)
    p.add_argument("--batches", default="1,8,32,128")
    p.add_argument("--side", type=int, default=224)
    p.add_argument("--fit", type=int, default=200)
    p.add_argument("--seconds", type=float, default=2)
    p.add_argument("--ways", default="eager,f16,compile")
    a = p.parse_args()
    device = torch.device(a.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    with torch.inference_mode():
        network = Network(a.network).eval().to(device)
        tail = Tail(a.network, a.side, a.fit, network, device)
        for way in a.ways.split(","):
            net, kind = network, torch.float32
            if way == "f16":
                kind = torch.float16
                net = Network(a.network).eval().to(device, kind, memory_format=torch.channels_last)
            elif way == "compile":
                net = torch.compile(network)
            for batch in map(int, a.batches.split(",")):
                images = torch.randn(batch, 3, a.side, a.side)

                def work():
                    there = images.to(device, kind)
                    if way == "f16":
                        there = there.to(memory_format=torch.channels_last)
                    return tail(net(there))

                ms = median_ms(work, a.seconds)
                print(json.dumps({"device": name, "network": a.network, "way": way, "batch": batch,
                                  "images_per_s": 1e3 * batch / ms, "ms": ms}), flush=True)


if __name__ == "__main__":
    main()
