"""k-means: the image in the middle of each of k clusters, the largest cluster first."""

import torch
from torch import Tensor

from sal_fast.query.clusters import clusters, unit
from sal_fast.query.criterion import needs
from sal_fast.query.pool import Pool


@needs("features")
def select(pool: Pool, k: int, seed: int) -> Tensor:
    cluster = clusters(pool.features, k, seed)
    points, sizes = unit(pool.features), cluster.bincount()
    centres = torch.zeros(len(sizes), points.shape[1]).index_add_(0, cluster, points) / sizes[:, None]
    away = (points - centres[cluster]).square().sum(1)
    # Images by their distance, then by the size of their cluster; the first of each cluster come first, then
    # the second ones, so that k images are found in fewer than k clusters too.
    order = away.argsort(stable=True)
    order = order[sizes[cluster[order]].argsort(descending=True, stable=True)]
    return order[_turn(cluster[order]).argsort(stable=True)][:k]


def _turn(cluster: Tensor) -> Tensor:
    """For each image, how many images of its cluster stand before it."""
    order = cluster.argsort(stable=True)
    counts = cluster.bincount()
    turn = torch.arange(len(cluster)) - (counts.cumsum(0) - counts)[cluster[order]]
    return torch.empty_like(turn).scatter_(0, order, turn)
