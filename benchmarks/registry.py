"""What is measured: benchmarks/ops/<op>.py has the op's SIZES and its cases."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sal_fast.bench.usual import with_gradient as with_gradient

Variant = Callable[..., Any]
OPS = (
    "uncertainty",
    "cam_head",
    "minmax_normalize",
    "saliency_loss",
    "ssim",
    "cyborg_loss",
    "topn_dice",
    "crop",
    "probes",
    "kcenter",
    "badge",
)


@dataclass(frozen=True)
class Case:
    """One computation, and the ways to do it that are timed against each other."""

    op: str
    name: str
    inputs: Callable[[torch.device, int], tuple[Tensor, ...]]  # of a device and a seed
    variants: dict[str, Variant]  # the first is ours
    verify: Callable[..., None]  # raises if ours is wrong on these inputs
    bytes_moved: int  # the least that must cross the memory bus
    shape: tuple[int, ...]
    dtype: str


def sizes(op: str) -> dict[str, int]:
    """The names and defaults of what `cases` takes."""
    default: dict[str, int] = importlib.import_module(f"benchmarks.ops.{op}").SIZES
    return default


def cases(op: str, dtype: torch.dtype, **changed: int) -> list[Case]:
    module = importlib.import_module(f"benchmarks.ops.{op}")
    result: list[Case] = module.cases(dtype, **(sizes(op) | changed))
    return result


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
