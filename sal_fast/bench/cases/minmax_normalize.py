"""Min-max normalisation of maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.bench.single import OpBenchmark, agree, both_ways, compiled, draws
from sal_fast.bench.suite import Case


@dataclass(frozen=True)
class Benchmark(OpBenchmark):
    """Min-max normalisation of maps of 7 x 7 pixels, and of larger ones.

    The variant `eager` gives NaN for a flat map; ours does not.
    """

    SMALL: ClassVar = {"maps": 3, "side": 12}

    maps: int = 64
    """Maps."""
    side: int = 224
    """Pixels a side of the larger maps."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        def inputs(seed: int, side: int) -> tuple[Tensor, ...]:
            return (draws(device, seed).normal(self.maps, side, side).to(self.kind),)

        named = {
            "sal_fast": ops.minmax_normalize,
            "eager": usual.normalised,
            "compile": compiled(usual.normalised),
        }
        for side in (7, self.side):
            for way, backward, variants in both_ways(named):
                yield Case(
                    f"{side}-{way}",
                    variants,
                    partial(inputs, side=side),
                    partial(agree, variants["sal_fast"], rtol=1e-5, atol=1e-6),
                    # The extremes need the whole map before a value is written; it stays in the cache.
                    bytes_moved=self.maps * side**2 * (self.kind.itemsize + 4) * (2 if backward else 1),
                )
