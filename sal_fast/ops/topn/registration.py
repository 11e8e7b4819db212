"""The torch operators sal_fast::topn_mask and sal_fast::topn_dice."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sal_fast.ops import _launch, _masks
from sal_fast.ops.bit_mask import BitMask
from sal_fast.ops.dice.reference import quotient
from sal_fast.ops.topn import reference

# kLargestCell of csrc/include/sal_fast/topn.h: the difference of two cells is a finite float.
LARGEST_CELL = torch.finfo(torch.float32).max / 2

MaskResults = tuple[Tensor, Tensor]
DiceResults = tuple[Tensor, Tensor, Tensor]


def _mask_takes(maps: Tensor, n: Tensor | None, count: int, packed: bool) -> bool:
    return _launch.native(maps) and maps.shape[1] * maps.shape[2] < 1 << 31


def _mask_fill(results: MaskResults, maps: Tensor, n: Tensor | None, count: int, packed: bool) -> None:
    mask, valid = results
    images, height, width = maps.shape
    image_stride, row_stride, column_stride = maps.stride()
    _launch.launch(
        "topn_mask", maps.device, maps=maps, dtype=_launch.DTYPES[maps.dtype], images=images, height=height,
        width=width, image_stride=image_stride, row_stride=row_stride, column_stride=column_stride, counts=n,
        counts_stride=0 if n is None else n.stride(0), count=count,
        out_type=_masks.BITS if packed else _masks.BYTES, out=mask, valid=valid,
    )  # fmt: skip


def _mask_empty(maps: Tensor, n: Tensor | None, count: int, packed: bool) -> MaskResults:
    batch, height, width = maps.shape
    shape, dtype = (batch, height, width), torch.bool
    if packed:
        shape, dtype = (batch, height, (width + 31) // 32), torch.int32
    return maps.new_empty(shape, dtype=dtype), maps.new_empty(batch, dtype=torch.bool)


def _mask_reference(maps: Tensor, n: Tensor | None, count: int, packed: bool) -> MaskResults:
    counts = torch.full((maps.shape[0],), count, device=maps.device) if n is None else n
    mask = reference.topn_mask(maps, counts)
    return BitMask.pack(mask).words if packed else mask, ~maps.isnan().flatten(1).any(1)


def _dice_takes(cam: Tensor, mask: Tensor, sizes: Sequence[int], empty: float) -> bool:
    return _launch.native(cam) and max(*cam.shape[1:], *sizes[1:]) <= _launch.MOST_SIDE


def _dice_fill(results: DiceResults, cam: Tensor, mask: Tensor, sizes: Sequence[int], empty: float) -> None:
    cam = cam.contiguous()
    (images, cam_height, cam_width), (columns, height, width) = cam.shape, sizes
    dice, hits, n = results
    _launch.launch(
        "topn_dice", cam.device, cam=cam, dtype=_launch.DTYPES[cam.dtype], images=images,
        cam_height=cam_height, cam_width=cam_width, mask=_masks.fields(mask, columns), height=height,
        width=width, empty=empty, dice=dice, hits=hits, n=n,
    )  # fmt: skip


def _dice_empty(cam: Tensor, mask: Tensor, sizes: Sequence[int], empty: float) -> DiceResults:
    dice = cam.new_empty(cam.shape[0], dtype=torch.float32)
    return dice, torch.empty_like(dice, dtype=torch.int64), torch.empty_like(dice, dtype=torch.int64)


def _dice_reference(cam: Tensor, mask: Tensor, sizes: Sequence[int], empty: float) -> DiceResults:
    columns, height, width = sizes
    cam = cam if cam.dtype == torch.float64 else cam.float()
    finite = (cam.abs() <= LARGEST_CELL).flatten(1).all(1)
    human = reference.nearest(_masks.unpacked(mask, columns), (height, width))
    hits, n = reference.topn_hits(torch.where(finite[:, None, None], cam, 0.0), human)
    hits = torch.where(finite, hits, 0)
    return torch.where(finite, quotient(hits, 2 * n, empty), float("nan")), hits, n


topn_mask = _launch.operator(
    # n: how many of each image, or None: `count`. mask: bool, or the words of a BitMask. valid: false for a
    # map with NaN or an n out of range.
    "topn_mask(Tensor maps, Tensor? n, SymInt count, bool packed) -> (Tensor mask, Tensor valid)",
    _mask_empty,
    _mask_fill,
    _launch.Fallback(_mask_takes, _mask_reference),
)
topn_dice = _launch.operator(
    # mask: bool, or the words of a BitMask. sizes: the mask's width; height and width at which pixels are
    # counted.
    "topn_dice(Tensor cam, Tensor mask, SymInt[] sizes, float empty) -> (Tensor dice, Tensor hits, Tensor n)",
    _dice_empty,
    _dice_fill,
    _launch.Fallback(_dice_takes, _dice_reference),
)
