"""How ops take binary masks: as bool tensors and as BitMasks."""

from typing import Any, Literal, get_args

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
    """The Dice value that the policy gives an empty mask."""
    _checks.choice(op, "empty", empty, EMPTIES)
    return _EMPTY_DICE[empty]


def stored(
    op: str, name: str, mask: Tensor | BitMask, dtypes: tuple[torch.dtype, ...] = (torch.bool,)
) -> tuple[Tensor, int]:
    """The tensor that stores a mask (of `dtypes`, or a BitMask's words), and the mask's width in pixels."""
    if isinstance(mask, BitMask):
        return mask.words, mask.width
    if not isinstance(mask, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor or a BitMask, got {type(mask).__name__}")
    if mask.dtype not in dtypes:
        raise TypeError(f"{op}: {name} must be {_checks.names(dtypes)} or a BitMask, got {mask.dtype}")
    _checks.shape(op, name, mask, None, None, None)
    return mask, mask.shape[2]


def unpacked(tensor: Tensor, width: int) -> Tensor:
    """Bool [B, H, W], from the tensor that `stored` gave."""
    return tensor if tensor.dtype == torch.bool else BitMask(tensor, width).unpack()


def fields(tensor: Tensor, width: int) -> dict[str, Any]:
    """The fields of the struct Mask. The words of a row are copied if they are not neighbours."""
    packed = tensor.dtype == torch.int32
    if packed and tensor.stride(2) != 1:
        tensor = tensor.contiguous()
    image_stride, row_stride, column_stride = tensor.stride()
    return {
        "data": tensor, "type": BITS if packed else BYTES, "height": tensor.shape[1], "width": width,
        "image_stride": image_stride, "row_stride": row_stride,
        "column_stride": 1 if packed else column_stride,
    }  # fmt: skip
