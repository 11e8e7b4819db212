"""Which images of the pool to label next: six criteria, one file each, one contract for all.

A criterion is a module with `NEEDS` (which fields of `Pool` it reads: the rest may be None) and
`select(pool, k, seed) -> Query`. To add one: write its file, name it in `CRITERIA`; the contract tests take
it from there.
"""

from __future__ import annotations

from typing import Protocol

from sal_fast.query import badge, core_set, entropy, least_confidence, margin, random
from sal_fast.query.pool import Pool, Query


class Criterion(Protocol):
    """What a module must offer to be a criterion."""

    NEEDS: frozenset[str]

    def select(self, pool: Pool, k: int, seed: int) -> Query: ...


CRITERIA: dict[str, Criterion] = {
    "random": random,
    "margin": margin,
    "least-confidence": least_confidence,
    "entropy": entropy,
    "badge": badge,
    "core-set": core_set,
}


def select(criterion: str, pool: Pool, k: int, *, seed: int) -> Query:
    """Pick min(k, N) images of a pool of N by one of the criteria.

    The same pool and seed give the same query; no position comes twice; ties go to the lowest position.

    Raises:
        ValueError: an unknown criterion, a negative k, a field that the criterion needs and the pool lacks,
            fields of different lengths, NaN or infinity in them.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}, got {criterion!r}")
    if k < 0:
        raise ValueError(f"{criterion}: k must be at least 0, got {k}")
    pool.check(criterion, CRITERIA[criterion].NEEDS)
    return CRITERIA[criterion].select(pool, min(k, pool.size), seed)


__all__ = ["CRITERIA", "Pool", "Query", "select"]
