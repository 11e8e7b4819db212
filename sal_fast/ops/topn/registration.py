"""The torch operators sal_fast::topn_mask and sal_fast::topn_dice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sal_fast.ops import _launch, _masks

# kMostSide of csrc/include/sal_fast/launch.h.
_MOST_SIDE = 1 << 14


def takes_maps(maps: Tensor) -> bool:
    """Whether the kernels do; the reference takes any size."""
    return _launch.native(maps) and maps.shape[1] * maps.shape[2] < 1 << 31


def takes_cam(cam: Tensor, height: int, width: int) -> bool:
    return _launch.native(cam) and max(cam.shape[1], cam.shape[2], height, width) <= _MOST_SIDE


def _topn_mask_forward(maps: Tensor, n: Tensor | None, count: int, packed: bool) -> tuple[Tensor, Tensor]:
    mask, valid = _topn_mask_fake(maps, n, count, packed)
    counts = (n.data_ptr(), n.stride(0)) if n is not None else (0, 0)
    _launch.launch(
        "topn_mask", maps.device, maps.data_ptr(), _launch.DTYPES[maps.dtype], *maps.shape, *maps.stride(),
        *counts, count, _masks.BITS if packed else _masks.BYTES, mask.data_ptr(), valid.data_ptr(),
    )  # fmt: skip
    return mask, valid


def _topn_mask_fake(maps: Tensor, n: Tensor | None, count: int, packed: bool) -> tuple[Tensor, Tensor]:
    batch, height, width = maps.shape
    shape, dtype = (batch, height, width), torch.bool
    if packed:
        shape, dtype = (batch, height, (width + 31) // 32), torch.int32
    return maps.new_empty(shape, dtype=dtype), maps.new_empty(batch, dtype=torch.bool)


def _topn_dice_forward(
    cam: Tensor, mask: Tensor, sizes: Sequence[int], empty: float
) -> tuple[Tensor, Tensor, Tensor]:
    cam, mask = cam.contiguous(), _masks.addressable(mask)
    width, *size = sizes
    dice, hits, n = results = _topn_dice_fake(cam, mask, sizes, empty)
    _launch.launch(
        "topn_dice", cam.device, cam.data_ptr(), _launch.DTYPES[cam.dtype], *cam.shape,
        *_masks.fields(mask, width), *size, empty, dice.data_ptr(), hits.data_ptr(), n.data_ptr(),
    )  # fmt: skip
    return results


def _topn_dice_fake(
    cam: Tensor, mask: Tensor, sizes: Sequence[int], empty: float
) -> tuple[Tensor, Tensor, Tensor]:
    batch = cam.shape[0]
    return (
        cam.new_empty(batch, dtype=torch.float32),
        cam.new_empty(batch, dtype=torch.int64),
        cam.new_empty(batch, dtype=torch.int64),
    )


_topn_mask = _launch.operator(
    # n: of each image, or None: count. valid: false for a map with NaN or an n out of range.
    "topn_mask(Tensor maps, Tensor? n, SymInt count, bool packed) -> (Tensor mask, Tensor valid)",
    _topn_mask_forward,
    _topn_mask_fake,
)
_topn_dice = _launch.operator(
    # sizes: the mask's width; height and width at which pixels are counted.
    "topn_dice(Tensor cam, Tensor mask, SymInt[] sizes, float empty) -> (Tensor dice, Tensor hits, Tensor n)",
    _topn_dice_forward,
    _topn_dice_fake,
)


def topn_mask(maps: Tensor, n: int | Tensor, packed: bool) -> tuple[Tensor, Tensor]:
    """Of what `takes_maps`: the mask, bool or the words of a BitMask, and which images are valid."""
    tensor, count = (n, 0) if isinstance(n, Tensor) else (None, n)
    result: tuple[Tensor, Tensor] = _topn_mask(maps, tensor, count, packed)
    return result


def topn_dice(cam: Tensor, mask: Tensor, sizes: Sequence[int], empty: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of what `takes_cam`: dice, hits, n. `mask`: bool, or the words of a BitMask."""
    result: tuple[Tensor, Tensor, Tensor] = _topn_dice(cam, mask, sizes, empty)
    return result
