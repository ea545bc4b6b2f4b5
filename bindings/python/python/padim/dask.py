"""Fits and scores over a Dask cluster.

    from dask.distributed import Client
    import padim, padim.dask

    detector = padim.dask.fit(Client("tcp://scheduler:8786"), padim.Padim(), paths)

Each worker fits a shard of the images (`Padim.partial_fit`); the statistics are merged as a tree, so that no machine
holds more than a few of them, and the result equals that of one process up to rounding. A worker that is lost costs
its shards only: Dask computes them again. All workers must see the files under the same paths.
"""

import numpy as np

from ._errors import ConfigError


def shards_of(items, size):
    return [items[first : first + size] for first in range(0, len(items), size)]


def fit_shard(images, estimator):
    return estimator.partial_fit(images)


def merge_two(a, b):
    return a.merged(b)


def fit(client, estimator, images, shard=64, retries=3):
    """A detector of all images. `shard`: the images of a task; `retries`: how often a failed task is repeated."""
    if not images:
        raise ConfigError("there are no images")
    # Without what an earlier fit has left in it.
    estimator = type(estimator)(**estimator.get_params())
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
