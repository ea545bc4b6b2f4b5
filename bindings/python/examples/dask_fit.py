"""Fits one detector on the images of a folder over a Dask cluster, and scores images with it.

    python dask_fit.py FOLDER part.padim [--scheduler tcp://HOST:8786] [--score FOLDER] [--workers 4]

All workers must see the files under the same paths (see `padim.dask`). Without --scheduler, processes are started on
this machine.
"""
import argparse
from pathlib import Path

from dask.distributed import Client, LocalCluster

import padim
import padim.dask

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def images_in(folder):
    return sorted(str(path) for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)


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
        detector = padim.dask.fit(client, padim.Padim(), images, a.shard)
        detector.save(a.detector)
        print(f"{len(images)} images fitted, {a.detector} saved")
        if a.score:
            images = images_in(a.score)
            for path, value in zip(images, padim.dask.score(client, detector, images, a.shard)):
                print(f"{value:.3f} {path}")


if __name__ == "__main__":
    main()
