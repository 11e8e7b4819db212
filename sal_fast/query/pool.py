"""What a criterion is given and what it returns."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, distributed

from sal_fast import ops
from sal_fast._util import progress

LONG = 10.0  # seconds after which a query is worth a line in a log
ROWS = 16_384  # looked at together: what is made of a pool, however large, stays small


@dataclass(frozen=True)
class Pool:
    """The unlabelled images, position by position. The fields may be mapped files.

    size N; logits [N, K] and features [N, d] (penultimate) by the accuracy model in eval mode; labelled
    [L, d], the labelled images' features. A field that the criterion does not need may be None. device: where
    badge and core-set compute; None: where the fields are. group: ranks that hold the same pool and divide
    the passes of badge and core-set; each returns the same query.
    """

    size: int
    logits: Tensor | None = None
    features: Tensor | None = None
    labelled: Tensor | None = None
    device: torch.device | None = None
    group: distributed.ProcessGroup | None = None

    def check(self, criterion: str, needs: frozenset[str]) -> None:
        for name in sorted(needs):
            value = getattr(self, name)
            if value is None:
                raise ValueError(f"{criterion}: the pool has no {name}, which this criterion reads")
            if name != "labelled" and len(value) != self.size:
                raise ValueError(f"{criterion}: expected {self.size} rows of {name}, got {len(value)}")
            if not all(bool(rows.isfinite().all()) for rows in value.split(ROWS)):
                raise ValueError(f"{criterion}: {name} contain NaN or infinity; expected finite numbers")

    def need(self, name: str) -> Tensor:
        value = getattr(self, name)
        assert value is not None  # `check` has seen it
        return value


class Query(NamedTuple):
    """positions int64 [k] in the pool, the first is asked for first; scores float64 [k], higher = earlier."""

    positions: Tensor
    scores: Tensor


def most_uncertain(pool: Pool, k: int, kind: ops.UncertaintyKind) -> Query:
    """The k highest uncertainties; the lowest position wins a tie."""
    scores = ops.uncertainty(pool.need("logits"), kind).double()
    order = scores.argsort(descending=True, stable=True)[:k]
    return Query(order, scores[order])


@contextmanager
def shown(criterion: str, pool: Pool, k: int) -> Iterator[Callable[[int, int], None]]:
    """Progress for an op: a bar where there is a terminal; a line in a log where it took a while.

    Of a group the first rank speaks for all.
    """
    if pool.group is not None and distributed.get_rank(pool.group) > 0:
        yield lambda picked, total: None
        return
    begin = time.perf_counter()
    with progress.bar(f"{criterion} query", k, log=False) as advance:
        there = 0

        def show(picked: int, total: int) -> None:
            nonlocal there
            for _ in range(picked - there):
                advance()
            there = picked

        yield show
    spent = time.perf_counter() - begin
    if spent > LONG:
        print(f"{criterion} query: {k} in {progress.duration(spent)}", file=sys.stderr)


def in_order(picks: Tensor) -> Query:
    """A sequence of picks has no scores but its own order: k, k-1, ..., 1."""
    return Query(picks, torch.arange(len(picks), 0, -1, dtype=torch.float64, device=picks.device))
