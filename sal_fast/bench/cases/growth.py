"""How the time of selection grows with the pool and the query, and what a pool of a million rows takes."""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.bench.suite import Benchmark as Base
from sal_fast.bench.suite import Case, Ratio

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POOLS = ("spread", "clusters")
GROWTH = (1, 2, 4, 8)
MOST_PICKS = 1000  # of the largest pool
SELECTIONS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "badge": lambda probs, features, k: ops.badge(probs, features, k, seed=0),
    "kcenter": lambda probs, features, k: ops.kcenter(features, k),
}


@dataclass(frozen=True)
class Benchmark(Base):
    """How the time of BADGE and k-center grows with the rows of a pool and with the picks.

    The rows of the pool `spread` are all about equally far apart. Those of `clusters` are like a trained
    network's: each is near the centre of its class and mostly sure of it, and the few far ones are taken
    first. A larger pool is measured once, in a process of its own, with its peak of memory.
    """

    LEAST: ClassVar = {"largest": 0}
    SMALL: ClassVar = {"rows": 30, "picks": 3, "classes": 4, "columns": 8, "largest": 0}

    rounds: int = 3
    """Every size has its turn in each round."""
    rows: int = 25_000
    """Rows of the smallest pool; the others have 2, 4 and 8 times as many."""
    picks: int = 100
    """The smallest query; the others have 2, 4 and 8 times as many picks."""
    classes: int = 100
    """Columns of the probabilities."""
    columns: int = 256
    """Features."""
    largest: int = 1_000_000
    """Rows of the larger pool, of which 1,000 are picked; 0 leaves it out."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        by_rows = [(scale * self.rows, 2 * self.picks) for scale in GROWTH]
        by_picks = [(2 * self.rows, scale * self.picks) for scale in GROWTH]
        names = {size: _name(*size) for size in dict.fromkeys(by_rows + by_picks)}
        for kind in POOLS:
            probs, features = pool(GROWTH[-1] * self.rows, kind, self.classes, self.columns, device)
            for op, select in SELECTIONS.items():
                yield Case(
                    f"{op}, {kind}",
                    {
                        name: partial(select, probs[:rows], features[:rows], picks)
                        for (rows, picks), name in names.items()
                    },
                    verify=partial(_verify, select, probs[: self.rows], features[: self.rows], self.picks),
                    ratios=[Ratio(names[sizes[-1]], names[sizes[0]]) for sizes in (by_rows, by_picks)],
                    figures=partial(self._largest, op, kind, device),
                )

    def _largest(self, op: str, kind: str, device: torch.device) -> dict[str, float]:
        if not self.largest:
            return {}
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawn, torch.set_num_threads, (torch.get_num_threads(),)) as process:
            found = process.submit(once, op, self.largest, kind, self.classes, self.columns, device).result()
        return {f"{op}, {kind}, {self.largest} rows: {name}": value for name, value in found.items()}

    @staticmethod
    def draw(document: dict[str, Any]) -> Figure:
        """Return a figure of seconds by rows and by picks."""
        from matplotlib.figure import Figure

        options = document["options"]
        drawn = Figure(figsize=(8, 3), layout="constrained")
        for axis, by, fixed in zip(drawn.subplots(1, 2), ("rows", "picks"), ("picks", "rows"), strict=True):
            at = 2 * options[fixed]
            for op, kind in itertools.product(SELECTIONS, POOLS):
                chosen = sorted(
                    (size[by], 1e-3 * one["ms"])
                    for one in document["results"]
                    if one["case"] == f"{op}, {kind}" and (size := _size(one["variant"]))[fixed] == at
                )
                style = {"badge": "oC0", "kcenter": "sC1"}[op] + {"spread": "-", "clusters": "--"}[kind]
                axis.loglog(*zip(*chosen, strict=True), style, label=f"{op}, {kind}")
            axis.set(xlabel=by, ylabel="seconds", title=f"{at:,} {fixed}")
            axis.set_xticks([x for x, _ in chosen], labels=[f"{x:,}" for x, _ in chosen])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        drawn.axes[0].legend(fontsize="small")
        return drawn


def _name(rows: int, picks: int) -> str:
    return f"{rows} rows, {picks} picks"


def _size(name: str) -> dict[str, int]:
    """Return what `_name` was given."""
    rows, _, picks, _ = name.split()
    return {"rows": int(rows), "picks": int(picks)}


def _verify(select: Callable[..., Tensor], probs: Tensor, features: Tensor, k: int) -> None:
    assert len(select(probs, features, k).unique()) == k


def pool(rows: int, kind: str, classes: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return probabilities and features in float32; no other tensor of their size is made."""
    draws = torch.Generator().manual_seed(0)
    probs, features = torch.empty(rows, classes), torch.empty(rows, columns)
    centers = torch.randn(classes, columns, generator=draws).relu_()
    for p, e in zip(probs.split(10_000), features.split(10_000), strict=True):
        p.copy_(3 * torch.randn(p.shape, generator=draws))
        e.copy_(torch.randn(e.shape, generator=draws).relu_())
        if kind == "clusters":
            labels = torch.randint(classes, (len(e),), generator=draws)
            p[torch.arange(len(e)), labels] += 10
            e.mul_(0.2).add_(centers[labels])
        p.copy_(p.softmax(1))
    return probs.to(device), features.to(device)


def once(op: str, rows: int, kind: str, classes: int, columns: int, device: torch.device) -> dict[str, float]:
    """Select once from a pool, in a process whose peak of memory is the call's."""
    probs, features = pool(rows, kind, classes, columns, device)
    few = min(rows, 2000)
    SELECTIONS[op](probs[:few], features[:few], 10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    begin, picks = time.perf_counter(), min(MOST_PICKS, rows)
    assert len(SELECTIONS[op](probs, features, picks).unique()) == picks
    spent = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    inputs = features.nbytes + (probs.nbytes if op == "badge" else 0)
    return {
        "seconds": spent,
        "picks_per_second": picks / spent,
        "peak_bytes": peak,
        "peak_over_inputs": (peak - before) / inputs,
    }
