"""Uncertainty of rows of logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, get_args

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.bench.single import OpBenchmark, agree, both_ways, compiled, draws
from sal_fast.bench.suite import Case, Variant

VERIFIED = 512  # rows


def lean(logits: Tensor, kind: str) -> Tensor:
    """Compute it without a matrix of probabilities, but for entropy."""
    if kind == "entropy":
        return torch.special.entr(logits.softmax(1)).sum(1)
    if kind == "least-confidence":
        return 1 - (logits.amax(1) - logits.logsumexp(1)).exp()
    p = (logits.topk(2, dim=1).values - logits.logsumexp(1, keepdim=True)).exp()
    return 1 - (p[:, 0] - p[:, 1])


@dataclass(frozen=True)
class Benchmark(OpBenchmark):
    """Uncertainty of rows of logits.

    The variant `eager` makes the matrix of probabilities, as one usually does; `lean` is the best that we
    found in eager torch; `compile` is torch.compile of eager.
    """

    SMALL: ClassVar = {"rows": 64, "columns": 10}

    rows: int = 65_536
    """Rows of logits."""
    columns: int = 1000
    """Classes."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        def inputs(seed: int) -> tuple[Tensor, ...]:
            return ((3 * draws(device, seed).normal(self.rows, self.columns)).to(self.kind),)

        def verify(logits: Tensor, ours: Variant, backward: bool) -> None:
            agree(ours, logits[:VERIFIED], rtol=1e-2 if backward else 1e-5, atol=1e-6)

        matrix = self.rows * self.columns * self.kind.itemsize
        for kind in get_args(ops.UncertaintyKind):
            eager = partial(usual.uncertainty, kind=kind)
            named: dict[str, Variant] = {
                "sal_fast": partial(ops.uncertainty, kind=kind),
                "eager": eager,
                "lean": partial(lean, kind=kind),
                "compile": compiled(eager),
            }
            for way, backward, variants in both_ways(named):
                yield Case(
                    f"{kind}-{way}",
                    variants,
                    inputs,
                    partial(verify, ours=variants["sal_fast"], backward=backward),
                    # Backward reads the logits again and writes the gradient.
                    bytes_moved=(3 if backward else 1) * matrix + 4 * self.rows,
                )
