#!/usr/bin/env python3
"""Raises what blocks of trained weights give out, so that ReLU cuts less of it off at zero.

    VENV/bin/python scripts/train_bundled/lift.py trunk-450.safetensors bundled.safetensors

What is cut off, Gaussians cannot see, and a normal distribution suits values that are cut at zero worse than
whole ones. So the last norm of a block adds `LIFT`, and the norms of the next block take it away again:
other layers see what they have seen (but for their margins, where zeros stand), and besides it what was
below zero.
"""

import argparse
import hashlib
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

# What they give out is about 0.6 (root mean square) at its saved size. Behind the last one comes nothing
# that could mind.
LIFT = {"layer2.0": 0.2, "layer2.1": 0.2, "layer3.0": 0.2, "layer3.1": 1.2}
# Which convolutions take in what a block gives out, and which norms follow them.
NEXT = {
    "layer2.0": [("layer2.1.conv1", "layer2.1.bn1")],
    "layer2.1": [
        ("layer3.0.conv1", "layer3.0.bn1"),
        ("layer3.0.downsample.0", "layer3.0.downsample.1"),
    ],
    "layer3.0": [("layer3.1.conv1", "layer3.1.bn1")],
    "layer3.1": [],
}


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("trained", help="a file that train.py has written")
    p.add_argument("lifted")
    a = p.parse_args()
    tensors = load_file(a.trained)
    for block, lift in LIFT.items():
        tensors[f"{block}.bn2.bias"] += lift
        for convolution, norm in NEXT[block]:
            filters = tensors[f"{convolution}.weight"].float()
            tensors[f"{norm}.running_mean"] += lift * filters.sum((1, 2, 3))
    with safe_open(a.trained, "pt") as file:
        origin = file.metadata()["origin"]
    save_file(tensors, a.lifted, {"origin": f"{origin}, lifted by {LIFT}"})
    print(a.lifted, hashlib.sha256(Path(a.lifted).read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
