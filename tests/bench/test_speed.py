"""The cases of the single ops at a small size under pytest-benchmark.

`pytest -m full tests/bench/test_speed.py` shows its table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bench_sizes import SMALL

from sal_fast.bench import suite

OPS = (
    *("uncertainty", "kcenter", "badge", "crop", "cam_head", "minmax_normalize"),
    *("saliency_loss", "ssim", "cyborg_loss", "head_step", "topn_dice"),
)


def every_variant() -> Iterator[Any]:
    for op in OPS:
        benchmark = suite.load(op)
        for case in benchmark.function(benchmark.setup(device="cpu"), **SMALL[op]):
            for variant in case.variants:
                if variant != "compile":  # that would take minutes
                    yield pytest.param(case, variant, id=f"{op}-{case.name}-{variant}")


@pytest.mark.full
@pytest.mark.parametrize(("case", "variant"), list(every_variant()))
def test_op(benchmark: Callable[..., Any], case: suite.Case, variant: str) -> None:
    benchmark(case.variants[variant], *case.inputs(0))
