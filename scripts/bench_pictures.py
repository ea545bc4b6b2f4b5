#!/usr/bin/env python3
"""Times PIL and OpenCV on the way of a large picture to a network's input, as `benches/peers.rs --pictures`.

    python scripts/bench_pictures.py FILE.jpg       (needs numpy, pillow, opencv-python-headless)
    python scripts/bench_pictures.py --make FILE.jpg

One thread, medians, milliseconds per peer and task as JSON. The first form measures; `--make` writes a picture
of 12 megapixels (quality 90, about 3 MB) from a formula. PIL and OpenCV shrink with antialiasing: bilinear with
its support stretched, and INTER_AREA.
"""
import json
import statistics
import sys
import time

import numpy as np
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
SIDE = (224, 224)


def make(path):
    width, height = 4000, 3000
    y, x = np.mgrid[:height, :width].astype(np.float32)
    wave = 128 + 60 * np.sin(x / 90) * np.cos(y / 70)
    noise = np.random.RandomState(0).normal(0, 9, (height, width, 3))
    rgb = np.stack([wave, wave + 20 * np.sin(y / 33), wave * 0.8 + 20], axis=-1) + noise
    Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def normalized(rgb):
    return np.ascontiguousarray(((np.asarray(rgb, np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1))


def median_ms(runs, work):
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def of_pil(path):
    picture = Image.open(path).convert("RGB")
    gray = picture.convert("L")

    def scaled():
        image = Image.open(path)
        image.draft("RGB", SIDE)
        return normalized(image.convert("RGB").resize(SIDE, Image.BILINEAR))

    whole = lambda: normalized(Image.open(path).convert("RGB").resize(SIDE, Image.BILINEAR))
    return {
        "frame": median_ms(15, lambda: normalized(picture.resize(SIDE, Image.BILINEAR))),
        "gray-frame": median_ms(15, lambda: normalized(gray.resize(SIDE, Image.BILINEAR).convert("RGB"))),
        "jpeg": median_ms(9, scaled),
        "jpeg-whole": median_ms(9, whole),
    }


def of_opencv(path):
    import cv2

    cv2.setNumThreads(1)
    picture = cv2.imread(path)
    gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    shrunk = lambda image: cv2.resize(image, SIDE, interpolation=cv2.INTER_AREA)
    rgb = lambda image: normalized(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return {
        "frame": median_ms(15, lambda: rgb(shrunk(picture))),
        "gray-frame": median_ms(15, lambda: normalized(cv2.cvtColor(shrunk(gray), cv2.COLOR_GRAY2RGB))),
        "jpeg": median_ms(9, lambda: rgb(shrunk(cv2.imread(path, cv2.IMREAD_REDUCED_COLOR_8)))),
        "jpeg-whole": median_ms(9, lambda: rgb(shrunk(cv2.imread(path)))),
    }


def main():
    if sys.argv[1] == "--make":
        return make(sys.argv[2])
    path, peers = sys.argv[1], {}
    width, height = Image.open(path).size
    size = f"{round(width * height / 1e6)}mp"
    for name, measure in [("pil", of_pil), ("opencv", of_opencv)]:
        try:
            times = measure(path)
        except ImportError as error:
            print(f"  left out: {name}: {error}", file=sys.stderr)
            continue
        rows = {}
        for work, ms in times.items():
            suffix = "-whole" if work.endswith("-whole") else ""
            rows[f"{work.removesuffix('-whole')}-{size}{suffix}"] = ms
            if work.startswith("jpeg"):
                rows[f"jpeg-{size}-rust{suffix}"] = ms
        peers[name] = rows
    print(json.dumps(peers))


if __name__ == "__main__":
    main()
