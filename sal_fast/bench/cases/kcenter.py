"""The greedy k-center of a pool."""

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
from sal_fast.bench.suite import Case


@dataclass(frozen=True)
class Benchmark(OpBenchmark):
    """The greedy k-center, in blocks, against one pick a pass with torch.cdist (as dal-toolbox writes it).

    The variant `differences` avoids products of matrices, because their set-up costs more than one column.
    """

    SMALL: ClassVar = {"rows": 200, "columns": 16, "labelled": 20, "picks": 12}

    rows: int = 20_000
    """Rows of the pool."""
    columns: int = 512
    """Features."""
    labelled: int = 1000
    """Rows that are labelled already."""
    picks: int = 400
    """Rows to choose."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        def inputs(seed: int) -> tuple[Tensor, ...]:
            normal = draws(device, seed).normal
            return tuple(normal(n, self.columns).relu().to(self.kind) for n in (self.rows, self.labelled))

        def verify(features: Tensor, centers: Tensor) -> None:
            part, known, few = features[:2000], centers[:100], min(self.picks, 50)
            expected = usual.kcenter(part.double(), known.double(), few, products=False)
            assert torch.equal(ops.kcenter(part, few, centers=known).to(expected), expected)

        yield Case(
            f"{self.picks}-picks",
            {
                "sal_fast": lambda features, centers: ops.kcenter(features, self.picks, centers=centers),
                "cdist": partial(usual.kcenter, k=self.picks),
                "differences": partial(usual.kcenter, k=self.picks, products=False),
            },
            inputs,
            verify,
            bytes_moved=(self.rows + self.labelled) * self.columns * self.kind.itemsize,  # one pass
        )
