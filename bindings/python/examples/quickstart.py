"""Draws good parts and a defective one, fits a detector, and plots the anomaly map.

    python quickstart.py [map.png]       (needs matplotlib for the plot)
"""
import sys

import numpy as np

import padim


def part(number, scratch=False):
    random = np.random.RandomState(number)
    y, x = np.mgrid[:160, :160]
    shift = random.randint(-2, 3, 2)
    disk = (y - 80 - shift[0]) ** 2 + (x - 80 - shift[1]) ** 2 < 60**2
    image = np.where(disk, 170, 60)[..., None] + random.normal(0, 4, (160, 160, 3))
    if scratch:
        image[(abs(y - x) < 2) & (abs(x - 70) < 25)] = 230
    return image.clip(0, 255).astype(np.uint8)


def main():
    detector = padim.Padim().fit([part(i) for i in range(24)])
    detector.calibrate([part(i) for i in range(100, 119)])
    good, bad = part(500), part(501, scratch=True)
    for name, image in [("good", good), ("scratched", bad)]:
        prediction = detector.predict(image)
        print(f"{name}: score {prediction.image_score:.1f}, defective {prediction.is_defective}")
    if len(sys.argv) > 1:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plot

        _, (left, right) = plot.subplots(1, 2)
        left.imshow(bad)
        right.imshow(detector.predict(bad).original_map())
        plot.savefig(sys.argv[1])


if __name__ == "__main__":
    main()
