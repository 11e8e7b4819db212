"""Least confidence: images with the least likely most likely class (paper, App. A.1)."""

from __future__ import annotations

from sal_fast.query.pool import Pool, Query, most_uncertain

NEEDS = frozenset({"logits"})


def select(pool: Pool, k: int, seed: int) -> Query:
    return most_uncertain(pool, k, "least-confidence")
