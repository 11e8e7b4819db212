"""BADGE: D^2 sampling on hallucinated last-layer gradients (Ash et al. 2019; paper, App. A.1)."""

from __future__ import annotations

from sal_fast import ops
from sal_fast.query.pool import Pool, Query, in_order

NEEDS = frozenset({"logits", "features"})


def select(pool: Pool, k: int, seed: int) -> Query:
    probs = pool.need("logits").double().softmax(1)
    return in_order(ops.badge(probs, pool.need("features"), k, seed=seed))
