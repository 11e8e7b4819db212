"""TypiClust: the most typical image of each cluster in which nothing is labelled (Hacohen et al. 2022).

The labelled images and the pool are cut into as many clusters as images will be labelled (`MOST` at most).
An image is typical if its nearest neighbours in its cluster are near: typicality is 1 / the mean distance to
them. Clusters with the fewest labelled images come first, of these the largest.
"""

import heapq

import torch
from torch import Tensor

from sal_fast.query.clusters import clusters, unit
from sal_fast.query.criterion import needs
from sal_fast.query.pool import Pool

MOST = 500  # clusters
NEIGHBOURS = 20
SMALL = 5  # a cluster of fewer images is taken last


@needs("features", "labelled")
def select(pool: Pool, k: int, seed: int) -> Tensor:
    known = pool.labelled.features
    assert known is not None  # `Pool.check` has made sure of it
    points = torch.cat([unit(known), unit(pool.features)])
    cluster = clusters(points, min(len(known) + k, MOST, len(points)), seed)
    rest = cluster[len(known) :]
    labelled = cluster[: len(known)].bincount(minlength=int(cluster.max()) + 1).tolist()
    ready: list[tuple[bool, int, int, int, list[int]]] = []
    for number, size in enumerate(cluster.bincount().tolist()):
        members = (rest == number).nonzero()[:, 0]
        if len(members):
            typical = _typicality(points[len(known) + members], points[cluster == number])
            ranked = members[typical.argsort(descending=True, stable=True)]
            ready.append((size < SMALL, labelled[number], -size, number, ranked.tolist()))
    heapq.heapify(ready)
    chosen: list[int] = []
    while len(chosen) < k:
        small, count, size, number, left = ready[0]
        chosen.append(left.pop(0))
        if left:
            heapq.heapreplace(ready, (small, count + 1, size, number, left))
        else:
            heapq.heappop(ready)
    return torch.tensor(chosen)


def _typicality(points: Tensor, cluster: Tensor) -> Tensor:
    """1 / the mean distance of each point to its nearest neighbours in the cluster, of which it is one."""
    count = min(NEIGHBOURS, len(cluster) - 1)
    if count == 0:
        return torch.zeros(len(points))
    nearest = torch.cdist(points, cluster).topk(count + 1, largest=False).values[:, 1:]
    return 1 / (nearest.mean(1) + 1e-5)
