"""Binary masks as arguments: bool tensors and BitMasks."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops.bit_mask import BitMask

Empty = Literal["skip", "zero", "one"]
EMPTIES: tuple[Empty, ...] = get_args(Empty)

_EMPTY_DICE = {"skip": float("nan"), "zero": 0.0, "one": 1.0}

# The codes of csrc/include/sal_fast/launch/mask.h.
BYTES, BITS = 0, 1


def empty_dice(op: str, empty: str) -> float:
    """The Dice that the policy gives an empty mask."""
    _checks.choice(op, "empty", empty, EMPTIES)
    return _EMPTY_DICE[empty]


def stored(op: str, name: str, mask: Tensor | BitMask) -> tuple[Tensor, int]:
    """The tensor of a mask, bool or words, and its width in pixels."""
    if isinstance(mask, BitMask):
        return mask.words, mask.width
    if not isinstance(mask, Tensor):
        raise TypeError(f"{op}: {name} must be a bool tensor or a BitMask, got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        raise TypeError(f"{op}: {name} must be bool or a BitMask, got {mask.dtype}")
    _checks.shape(op, name, mask, None, None, None)
    return mask, mask.shape[2]


def unpacked(tensor: Tensor, width: int) -> Tensor:
    """Bool [B, H, W] of what `stored` gave."""
    return tensor if tensor.dtype == torch.bool else BitMask(tensor, width).unpack()


def addressable(tensor: Tensor) -> Tensor:
    """As the kernels take it: words have to be neighbours."""
    return tensor.contiguous() if tensor.dtype == torch.int32 and tensor.stride(2) != 1 else tensor


def fields(tensor: Tensor, width: int) -> tuple[int, ...]:
    """Those of the struct Mask, of an `addressable` tensor."""
    packed = tensor.dtype == torch.int32
    strides = (*tensor.stride()[:2], 1) if packed else tensor.stride()
    return tensor.data_ptr(), BITS if packed else BYTES, tensor.shape[1], width, *strides
