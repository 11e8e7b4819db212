"""The torch operators sal_fast::crop_images and sal_fast::crop_masks."""

from typing import Any

import torch
from torch import Tensor

from sal_fast.ops import _launch, _masks
from sal_fast.ops._modes import plain
from sal_fast.ops.crop import reference


def _takes(stored: Tensor, *_: Any) -> bool:
    return _launch.has_core(stored.device)


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _images_fill(
    out: Tensor, images: Tensor, rows: Tensor | None, box: Tensor | None, color: Tensor, *options: Any
) -> None:
    if not (images.stride(3) == 1 and (images.stride(2) == 3 or images.shape[2] == 1)):
        images = images.contiguous()
    stored, height, width, _ = images.shape
    image_stride, row_stride, _, _ = images.stride()
    batch, _, out_height, out_width = out.shape
    _launch.launch(
        "crop_images", images.device, images=images, stored=stored, height=height, width=width,
        image_stride=image_stride, row_stride=row_stride, rows=_dense(rows), box=_dense(box),
        color=color.contiguous(), color_stride=0 if color.ndim == 2 else 12, batch=batch,
        out_height=out_height, out_width=out_width, dtype=_launch.DTYPES[out.dtype], out=out,
    )  # fmt: skip


def _images_empty(images: Tensor, rows: Tensor | None, box: Tensor | None, *options: Any) -> Tensor:
    _, size, dtype = options
    batch = images.shape[0] if rows is None else rows.shape[0]
    return images.new_empty((batch, 3, *size), dtype=dtype)


def _images_reference(images: Tensor, rows: Tensor | None, box: Tensor | None, *options: Any) -> Tensor:
    color, size, dtype = options
    return reference.crop_images(images, rows, box, color, size).to(dtype)


def _masks_fill(out: Tensor, masks: Tensor, width: int, rows: Tensor | None, *options: Any) -> None:
    box, _ = options
    masks = masks if masks.stride(2) == 1 else masks.contiguous()
    batch, out_height, out_width = out.shape
    _launch.launch(
        "crop_masks", masks.device, masks=_masks.fields(masks, width), stored=masks.shape[0],
        rows=_dense(rows), box=_dense(box), batch=batch, out_height=out_height, out_width=out_width, out=out,
    )  # fmt: skip


def _masks_empty(masks: Tensor, width: int, rows: Tensor | None, *options: Any) -> Tensor:
    _, size = options
    dtype = torch.bool if masks.dtype == torch.int32 else masks.dtype
    batch = masks.shape[0] if rows is None else rows.shape[0]
    return masks.new_empty((batch, *size), dtype=dtype)


def _masks_reference(
    masks: Tensor, width: int, rows: Tensor | None, box: Tensor | None, size: tuple[int, int]
) -> Tensor:
    pixels = _masks.unpacked(masks, width) if masks.dtype == torch.int32 else masks
    return reference.crop_masks(pixels, rows, box, size)


_crop_images = _launch.operator(
    "crop_images(Tensor images, Tensor? rows, Tensor? box, Tensor color, SymInt[] size, ScalarType dtype)"
    " -> Tensor",
    _images_empty,
    _images_fill,
    _launch.Fallback(_takes, _images_reference),
)
crop_masks = _launch.operator(
    # masks: bytes, or the words of a BitMask. width: in pixels.
    "crop_masks(Tensor masks, SymInt width, Tensor? rows, Tensor? box, SymInt[] size) -> Tensor",
    _masks_empty,
    _masks_fill,
    _launch.Fallback(_takes, _masks_reference),
)


def crop_images(
    images: Tensor, rows: Tensor | None, box: Tensor | None, color: Tensor, *options: Any, out: Tensor | None
) -> Tensor:
    """The operator, with `out`, which is written to directly where nothing but the kernels sees the call.

    `options`: the size and the dtype of the result.
    """
    if out is None:
        return _crop_images(images, rows, box, color, *options)
    if not (plain((images, rows, box, color, out)) and _takes(images)):
        return out.copy_(_crop_images(images, rows, box, color, *options))
    _images_fill(out, images, rows, box, color)
    if not out.is_inference():
        torch.autograd.graph.increment_version(out)  # for what autograd has kept of it
    return out
