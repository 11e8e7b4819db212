"""The cases of the single ops at a small size under pytest-benchmark: pytest benchmarks/test_ops.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from sal_fast.bench import suite

CPU = torch.device("cpu")


def every_variant() -> Iterator[Any]:
    for op in suite.OPS:
        kind = suite.load(op)
        for case in kind(**kind.SMALL).cases(CPU):
            for variant in case.variants:
                if variant != "compile":  # that would take minutes
                    yield pytest.param(case, variant, id=f"{op}-{case.name}-{variant}")


@pytest.mark.parametrize(("case", "variant"), list(every_variant()))
def test_op(benchmark: Callable[..., Any], case: suite.Case, variant: str) -> None:
    inputs = case.inputs(0)
    case.verify(*inputs)
    benchmark(case.variants[variant], *inputs)
