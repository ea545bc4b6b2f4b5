"""Fits one detector on the images of a folder over a Dask cluster, and scores images with it.

    python dask_fit.py FOLDER part.padim [--scheduler tcp://HOST:8786] [--score FOLDER] [--workers 4]

Each worker fits a shard of the images (`Padim.partial_fit`); the statistics are merged as a tree, so that no machine
holds more than a few of them, and the result equals that of one process up to rounding. A worker that is lost costs
its shards only: Dask computes them again. All workers must see the files under the same paths. Without --scheduler,
processes are started on this machine.
"""
import argparse
from pathlib import Path

import numpy as np
from dask.distributed import Client, LocalCluster

import padim

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def images_in(folder):
    return sorted(str(path) for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)


def shards_of(items, size):
    return [items[first : first + size] for first in range(0, len(items), size)]


def fit_shard(images, estimator):
    return estimator.partial_fit(images)


def merge_two(a, b):
    return a.merged(b)


def fit(client, estimator, images, shard=64, retries=3):
    """A detector of all images."""
    if not images:
        raise padim.ConfigError("there are no images")
    fits = client.map(fit_shard, shards_of(images, shard), estimator=estimator, retries=retries)
    while len(fits) > 1:
        merged = [client.submit(merge_two, a, b, retries=retries) for a, b in zip(fits[::2], fits[1::2])]
        fits = merged + fits[len(merged) * 2 :]
    return fits[0].result().finish()


def score_shard(images, detector):
    return detector.scores(images)


def score(client, detector, images, shard=64, retries=3):
    """The scores of all images. The detector goes to each worker once."""
    held = client.scatter(detector, broadcast=True)
    scores = client.map(score_shard, shards_of(images, shard), detector=held, retries=retries)
    return np.concatenate(client.gather(scores)) if scores else np.zeros(0, np.float32)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", help="good images")
    p.add_argument("detector", help="where the detector goes")
    p.add_argument("--scheduler", help="the address of a running scheduler")
    p.add_argument("--workers", type=int, default=4, help="processes on this machine, without --scheduler")
    p.add_argument("--shard", type=int, default=64, help="images of a task")
    p.add_argument("--score", help="a folder of images to score")
    a = p.parse_args()
    cluster = a.scheduler or LocalCluster(n_workers=a.workers, threads_per_worker=1, dashboard_address=None)
    with Client(cluster) as client:
        images = images_in(a.folder)
        detector = fit(client, padim.Padim(), images, a.shard)
        detector.save(a.detector)
        print(f"{len(images)} images fitted, {a.detector} saved")
        if a.score:
            images = images_in(a.score)
            for path, value in zip(images, score(client, detector, images, a.shard)):
                print(f"{value:.3f} {path}")


if __name__ == "__main__":
    main()
