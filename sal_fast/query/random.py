"""Random: uniform over the pool (paper, App. A.1)."""

from __future__ import annotations

import torch

from sal_fast import seeds
from sal_fast.query.pool import Pool, Query, in_order

NEEDS: frozenset[str] = frozenset()


def select(pool: Pool, k: int, seed: int) -> Query:
    order = seeds.stream(seed, "random-criterion").permutation(pool.size)[:k]
    return in_order(torch.from_numpy(order.astype("int64")))
