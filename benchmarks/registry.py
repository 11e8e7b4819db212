"""What is measured: every op lists its cases in benchmarks/ops/<op>.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Variant = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One computation, and the ways to do it that are timed against each other."""

    op: str
    name: str
    inputs: Callable[[torch.device, int], tuple[torch.Tensor, ...]]  # of a device and a seed
    variants: dict[str, Variant]  # the first is ours
    verify: Callable[..., None]  # raises if ours is wrong on these inputs
    bytes_moved: int  # the least that must cross the memory bus
    shape: tuple[int, ...]
    dtype: str


def cases(op: str, rows: int, columns: int, dtype: torch.dtype) -> list[Case]:
    from benchmarks.ops import cam_head, uncertainty

    if op == "cam_head":
        return cam_head.cases(dtype=dtype)
    return uncertainty.cases(rows, columns, dtype)


OPS = ("uncertainty", "cam_head")
