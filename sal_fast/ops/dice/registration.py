"""The torch operator sal_fast::dice. Its masks are bool, or the words of a BitMask."""

import torch
from torch import Tensor

from sal_fast.ops import _launch, _masks
from sal_fast.ops.dice import reference


def _takes(first: Tensor, second: Tensor, width: int, empty: float) -> bool:
    """The kernels count the pixels of an image in 32 bits."""
    return _launch.has_core(first.device) and first.shape[1] * first.shape[2] < 1 << 31


def _fill(result: Tensor, first: Tensor, second: Tensor, width: int, empty: float) -> None:
    _launch.launch(
        "dice", first.device, images=first.shape[0], first=_masks.fields(first, width),
        second=_masks.fields(second, width), empty=empty, dice=result,
    )  # fmt: skip


def _empty(first: Tensor, second: Tensor, width: int, empty: float) -> Tensor:
    return first.new_empty(first.shape[0], dtype=torch.float32)


def _reference(first: Tensor, second: Tensor, width: int, empty: float) -> Tensor:
    return reference.dice(_masks.unpacked(first, width), _masks.unpacked(second, width), empty)


dice = _launch.operator(
    "dice(Tensor first, Tensor second, SymInt width, float empty) -> Tensor",
    _empty,
    _fill,
    _launch.Fallback(_takes, _reference),
)
