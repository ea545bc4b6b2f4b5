#!/usr/bin/env python3
"""Writes small JPEG files, and what PIL decodes from them at 1, 1/2, 1/4 and 1/8 of their size.

    python make_jpeg.py        (needs numpy and pillow; writes to jpeg/ beside this file)

The picture is a formula. PIL decodes by libjpeg-turbo; `draft` chooses the size.
"""
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).resolve().parent / "jpeg"


def picture(width, height):
    y, x = np.mgrid[:height, :width]
    wave = lambda a, b, c: 128 + 90 * np.sin(x / a + c) * np.cos(y / b)
    texture = (x * 7 + y * 13) % 23
    rgb = np.stack([wave(9, 14, 0) + texture, wave(21, 8, 1), wave(13, 31, 2) - texture], axis=-1)
    return Image.fromarray(rgb.clip(0, 255).astype(np.uint8))


def main():
    FOLDER.mkdir(exist_ok=True)
    print("made by Pillow", Image.__version__)
    for name, mode, size, options in [
        ("color-420", "RGB", (131, 90), {"subsampling": "4:2:0"}),
        ("color-422", "RGB", (96, 77), {"subsampling": "4:2:2"}),
        ("color-444", "RGB", (67, 61), {"subsampling": "4:4:4", "progressive": True}),
        ("gray", "L", (123, 50), {}),
    ]:
        file = FOLDER / f"{name}.jpg"
        picture(*size).convert(mode).save(file, quality=88, **options)
        for divisor in [1, 2, 4, 8]:
            image = Image.open(file)
            wanted = tuple(-(-side // divisor) for side in size)
            if divisor > 1:
                # PIL chooses the largest divisor that leaves at least this size.
                image.draft(mode, tuple(side // divisor for side in size))
            assert image.size == wanted, (image.size, wanted)
            image.save(FOLDER / f"{name}-{divisor}.png", optimize=True)


if __name__ == "__main__":
    main()
