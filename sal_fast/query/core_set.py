"""Core-Set: greedy k-center on penultimate features, the labelled set given (Sener and Savarese 2017)."""

from __future__ import annotations

from sal_fast import ops
from sal_fast.query.pool import Pool, Query, in_order, shown

NEEDS = frozenset({"features", "labelled"})


def select(pool: Pool, k: int, seed: int) -> Query:
    with shown("core-set", pool, k) as progress:
        features, labelled = pool.need("features"), pool.need("labelled")
        picks = ops.kcenter(
            features, k, centers=labelled, device=pool.device, progress=progress, group=pool.group
        )
    return in_order(picks)
