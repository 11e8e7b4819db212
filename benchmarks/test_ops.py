"""The same cases, small, under pytest-benchmark: pytest benchmarks/test_ops.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from benchmarks import registry

SMALL = {
    "uncertainty": {"rows": 4096},
    "cam_head": {"batch": 8},
    "minmax_normalize": {"maps": 8},
    "saliency_loss": {"batch": 4},
    "ssim": {"batch": 2, "side": 128},
    "cyborg_loss": {"batch": 2, "channels": 512, "depth": 18},
    "topn_dice": {"batch": 2},
    "crop": {"batch": 4, "stored": 8, "side": 64, "frame": 48},
    "kcenter": {"rows": 2000, "columns": 32, "labelled": 50, "picks": 40},
    "badge": {"rows": 2000, "classes": 10, "columns": 32, "picks": 40},
    "probes": {"batch": 2, "depth": 18, "image": 64},
}


def every_variant() -> Iterator[Any]:
    for op in registry.OPS:
        for case in registry.cases(op, torch.float32, **SMALL[op]):
            for variant in case.variants:
                if variant != "compile":  # minutes of compilation
                    yield pytest.param(case, variant, id=f"{op}-{case.name}-{variant}")


@pytest.mark.parametrize(("case", "variant"), list(every_variant()))
def test_op(benchmark: Callable[..., Any], case: registry.Case, variant: str) -> None:
    inputs = case.inputs(torch.device("cpu"), 0)
    case.verify(*inputs)
    benchmark(case.variants[variant], *inputs)
