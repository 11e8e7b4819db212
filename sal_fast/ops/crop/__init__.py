"""A training batch from a store of uint8 images: rows, crop, flip, resize and colour in one pass."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sal_fast.ops import _checks, _launch, _masks
from sal_fast.ops.bit_mask import BitMask
from sal_fast.ops.crop import registration

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def crop_images(
    images: Tensor,
    rows: Tensor | None = None,
    box: Tensor | None = None,
    *,
    size: int | tuple[int, int],
    color: Tensor,
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
) -> Tensor:
    """Crop boxes of stored images to one size, and map their RGB values by an affine map.

    A box is (left, top, right, bottom), in parts of an image of H x W pixels. For a result of h x w::

        result[b, c, y, x] = sum_k color[b, c, k] P_k(y', x') + color[b, c, 3]
        x' = (left + (x + 1/2) (right - left) / w) W - 1/2,  held within 0..W-1;  y' likewise
        P_k the bilinear interpolation of images[rows[b], :, :, k], of four pixels, without antialiasing

    A box with right < left mirrors, and so does one with bottom < top. Places outside the image have the
    colour of its edge. Normalising is color = [diag(1 / (255 std)) | -mean / std]; brightness, saturation,
    and contrast about a given grey can be composed with it. Places are kept to 2^-32 of a pixel, values in
    float32. If no pixel falls between two others (the whole image at its own size, mirrored or not), the map
    is applied to the pixels as they are.

    Args:
        images: uint8 [N, H, W, 3]. Images and rows may be strided; if pixels are too, all images are copied.
        rows: int64 [B], the images to crop, in any order and as often as wanted. None means all, once.
        box: float32 [B, 4]. None means the whole image. Coordinates beyond +-16384 count as +-16384.
        size: (h, w), or the side of a square.
        color: float32 [3, 4], or [B, 3, 4] for a map of each image's own. Numbers that are not finite give
            NaN or infinity in their channel.
        dtype: the dtype of the result: float32, float16 or bfloat16.
        out: the tensor to write to, contiguous, of the result's shape and dtype, and no part of a graph of
            autograd. On the CPU it takes longer to allocate a batch of more than 32 MB anew than to compute
            it.

    Returns:
        [B, 3, h, w] contiguous, or `out`. Not differentiable: box and color are constants. An image whose box
        holds NaN or an infinity is NaN. On a GPU, and in a compiled graph, so is one whose row is out of
        range.

    Raises:
        TypeError, ValueError: wrong types, shapes or devices, sides beyond 16384; on the CPU a bad row.
    """
    op = "crop_images"
    _checks.tensor(op, torch.uint8, images=images)
    _checks.shape(op, "images", images, None, None, None, 3)
    h, w = _size(op, size)
    batch = _batch(op, "images", images, rows, box)
    _checks.tensor(op, torch.float32, color=color)
    _checks.shape(op, "color", color, *((3, 4) if color.ndim == 2 else (batch, 3, 4)))
    if not isinstance(dtype, torch.dtype) or dtype not in _DTYPES:
        raise TypeError(f"{op}: dtype must be float32, float16 or bfloat16, got {dtype}")
    if out is not None:
        _checks.tensor(op, dtype, out=out)
        _checks.shape(op, "out", out, batch, 3, h, w)
        if out.requires_grad:
            raise ValueError(f"{op}: out must be no part of a graph of autograd, because nothing records it")
        if not out.is_contiguous():
            raise ValueError(f"{op}: out must be contiguous, got strides {out.stride()}")
    _checks.together(op, images=images, rows=rows, box=box, color=color, out=out)
    box = None if box is None else box.detach()
    return registration.crop_images(images, rows, box, color.detach(), (h, w), dtype, out=out)


def crop_masks(
    masks: Tensor | BitMask,
    rows: Tensor | None = None,
    box: Tensor | None = None,
    *,
    size: int | tuple[int, int],
) -> Tensor:
    """Crop the same boxes of stored masks, by nearest: values are copied, never mixed.

    Pixel x of a row is the stored pixel `floor((left + (x + 1/2) (right - left) / w) W)`, held within 0..W-1,
    and likewise for y. A place less than w 2^-32 below the edge of a pixel counts as being on it, so that
    rounding moves no place off an edge.

    Args:
        masks: uint8 or bool [N, H, W], or a `BitMask` of that shape. If rows are not contiguous, all are
        copied. rows, box, size: as for `crop_images`.

    Returns:
        [B, h, w] of the masks' dtype; bool for a `BitMask`. It is all 0 for an image whose box holds NaN or
        an infinity. On a GPU, and in a compiled graph, also for one whose row is out of range.

    Raises:
        TypeError, ValueError: as `crop_images`.
    """
    op = "crop_masks"
    stored, width = _masks.stored(op, "masks", masks, (torch.uint8, torch.bool))
    h, w = _size(op, size)
    _batch(op, "masks", masks, rows, box)
    _checks.together(op, masks=stored, rows=rows, box=box)
    return registration.crop_masks(stored, width, rows, None if box is None else box.detach(), (h, w))


def _size(op: str, size: int | tuple[int, int]) -> tuple[int, int]:
    given = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(given) != 2:
        raise TypeError(f"{op}: size must be an int or two, got {size!r}")
    height, width = (_checks.integer(op, "size", side, "an int or two") for side in given)
    if not 1 <= min(height, width) <= max(height, width) <= _launch.MOST_SIDE:
        raise ValueError(f"{op}: size must lie in 1..{_launch.MOST_SIDE}, got {size!r}")
    return height, width


def _batch(op: str, name: str, stored: Tensor | BitMask, rows: Tensor | None, box: Tensor | None) -> int:
    """The number of crops, after checks of rows, boxes and the sides of the stored images or masks."""
    count, height, width = stored.shape[:3]
    if rows is not None:
        _checks.tensor(op, torch.int64, rows=rows)
        _checks.shape(op, "rows", rows, None)
    batch = count if rows is None else rows.shape[0]
    if box is not None:
        _checks.tensor(op, torch.float32, box=box)
        _checks.shape(op, "box", box, batch, 4)
    if batch and not (count and 1 <= min(height, width) <= max(height, width) <= _launch.MOST_SIDE):
        raise ValueError(
            f"{op}: {name} must have an image or more and sides of 1..{_launch.MOST_SIDE}, got "
            f"{list(stored.shape)}"
        )
    _checks.label_values(op, "rows", rows, count)
    return batch
