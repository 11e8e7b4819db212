"""BADGE: D^2 sampling of a pool by gradients of the last layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.bench.single import OpBenchmark, draws
from sal_fast.bench.suite import Case, Variant


@dataclass(frozen=True)
class Benchmark(OpBenchmark):
    """BADGE in blocks, against one pick a pass in float64 (sequential), and in numpy on a CPU."""

    SMALL: ClassVar = {"rows": 200, "classes": 5, "columns": 16, "picks": 12}

    rows: int = 20_000
    """Rows of the pool."""
    classes: int = 100
    """Columns of the probabilities."""
    columns: int = 512
    """Features."""
    picks: int = 400
    """Rows to choose."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        def inputs(seed: int) -> tuple[Tensor, ...]:
            normal = draws(device, seed).normal
            probs = (3 * normal(self.rows, self.classes)).softmax(1)
            return probs.to(self.kind), normal(self.rows, self.columns).relu().to(self.kind)

        def verify(probs: Tensor, features: Tensor) -> None:
            """The first pick is the longest gradient and no row comes twice; tests hold the distribution."""
            q = probs.double()
            q[torch.arange(len(q)), q.argmax(1)] -= 1
            longest = (q.square().sum(1) * features.double().square().sum(1)).argmax()
            picks = ops.badge(probs, features, self.picks, seed=0)
            assert int(picks[0]) == int(longest)
            assert len(picks.unique()) == self.picks

        variants: dict[str, Variant] = {
            "sal_fast": partial(ops.badge, k=self.picks, seed=0),
            "sequential": partial(ops.badge, k=self.picks, seed=0, method="sequential"),
        }
        if device.type == "cpu":
            variants["numpy"] = partial(usual.badge, k=self.picks)
        moved = self.rows * (self.classes + self.columns) * self.kind.itemsize  # one pass
        yield Case(f"{self.picks}-picks", variants, inputs, verify, bytes_moved=moved)
