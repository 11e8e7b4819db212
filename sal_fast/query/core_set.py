"""Core-set: greedy k-center on penultimate features, given the labelled images (Sener and Savarese 2017)."""

from torch import Tensor

from sal_fast import ops
from sal_fast.query.criterion import needs
from sal_fast.query.pool import Pool
from sal_fast.query.shown import shown


@needs("features", "labelled")
def select(pool: Pool, k: int, seed: int) -> Tensor:
    features, labelled = pool.features, pool.labelled.features
    assert labelled is not None  # `Pool.check` has made sure of it
    centers = labelled.to(features.device)
    with shown("core-set", pool, k) as progress:
        return ops.kcenter(
            features, k, centers=centers, device=pool.device, progress=progress, group=pool.group
        )
