"""The torch operator sal_fast::dice."""

from __future__ import annotations

import torch
from torch import Tensor

from sal_fast.ops import _launch, _masks


def takes(first: Tensor) -> bool:
    """Whether the kernels do: pixels of an image are counted in 32 bits."""
    return _launch.has_core(first.device) and first.shape[1] * first.shape[2] < 1 << 31


def _forward(first: Tensor, second: Tensor, width: int, empty: float) -> Tensor:
    first, second = _masks.addressable(first), _masks.addressable(second)
    result = first.new_empty(first.shape[0], dtype=torch.float32)
    _launch.launch(
        "dice", first.device, first.shape[0], *_masks.fields(first, width), *_masks.fields(second, width),
        empty, result.data_ptr(),
    )  # fmt: skip
    return result


def _fake(first: Tensor, second: Tensor, width: int, empty: float) -> Tensor:
    return first.new_empty(first.shape[0], dtype=torch.float32)


_operator = _launch.operator(
    "dice(Tensor first, Tensor second, SymInt width, float empty) -> Tensor", _forward, _fake
)


def dice(first: Tensor, second: Tensor, width: int, empty: float) -> Tensor:
    """Of what `takes`; bool, or the words of a BitMask, each."""
    result: Tensor = _operator(first, second, width, empty)
    return result
