"""Clusters of images by their features, for criteria that spread a query over the pool."""

import warnings

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

ROUNDS = 10  # of Lloyd's algorithm


def clusters(features: Tensor, count: int, seed: int) -> Tensor:
    """The cluster of each image, int64 [N], by k-means on features [N, d] of unit length.

    The first centres are drawn by k-means++ (Arthur and Vassilvitskii 2007) from `seed`. There are fewer than
    `count` clusters if there are fewer different features, or if some clusters lose all their images.
    """
    points = unit(features).numpy()
    centres = _first_centres(points, count, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a cluster that has lost all its images
        _, assigned = kmeans2(points, centres, ROUNDS, minit="matrix")
    return torch.from_numpy(np.unique(assigned, return_inverse=True)[1].astype(np.int64))


def unit(features: Tensor) -> Tensor:
    """Features scaled to length 1, float32 on the CPU. A row of zeros stays zero."""
    return torch.nn.functional.normalize(features.float().cpu())


def _first_centres(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows that are drawn with odds of their squared distance to the rows before."""
    draws = np.random.Generator(np.random.Philox(seed))
    at = int(draws.integers(len(points)))
    chosen, far = [at], np.full(len(points), np.inf)
    while len(chosen) < count:
        far = np.minimum(far, np.square(points - points[at]).sum(1, dtype=np.float64))
        if not far.any():
            break
        at = int(draws.choice(len(points), p=far / far.sum()))
        chosen.append(at)
    return points[chosen]
