"""The same cases under pytest-benchmark: pytest benchmarks/ops/test_uncertainty.py."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.ops.uncertainty import cases

CASES = cases(4096, 1000, torch.float32)


@pytest.mark.parametrize("variant", ["sal_fast", "eager", "lean"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_uncertainty(benchmark: Callable[..., Any], case: Any, variant: str) -> None:
    inputs = case.inputs(torch.device("cpu"), 0)
    case.verify(*inputs)
    benchmark(case.variants[variant], *inputs)
