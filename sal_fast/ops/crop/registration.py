"""The torch operators sal_fast::crop_images and sal_fast::crop_masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sal_fast.ops import _launch, _masks
from sal_fast.ops.crop import reference


def takes(stored: Tensor) -> bool:
    """Whether the kernels do."""
    return _launch.has_core(stored.device)


def _batch(stored: Tensor, rows: Tensor | None) -> int:
    return stored.shape[0] if rows is None else rows.shape[0]


def _with_dense_pixels(images: Tensor) -> Tensor:
    dense = images.stride(3) == 1 and (images.stride(2) == 3 or images.shape[2] == 1)
    return images if dense else images.contiguous()


def _with_dense_rows(masks: Tensor) -> Tensor:
    return masks if masks.stride(2) == 1 else masks.contiguous()


def _dense(tensor: Tensor | None) -> tuple[Tensor | None, int]:
    """It, which has to be kept, and its address."""
    tensor = None if tensor is None else tensor.contiguous()
    return tensor, 0 if tensor is None else tensor.data_ptr()


def _fill(images: Tensor, rows: Tensor | None, box: Tensor | None, color: Tensor, out: Tensor) -> None:
    images, color = _with_dense_pixels(images), color.contiguous()
    (rows, rows_address), (box, box_address) = _dense(rows), _dense(box)
    count, height, width, _ = images.shape
    _launch.launch(
        "crop_images", images.device, images.data_ptr(), count, height, width, *images.stride()[:2],
        rows_address, box_address, color.data_ptr(), 0 if color.ndim == 2 else 12, out.shape[0],
        *out.shape[2:], _launch.DTYPES[out.dtype], out.data_ptr(),
    )  # fmt: skip


def _images_fake(
    images: Tensor,
    rows: Tensor | None,
    box: Tensor | None,
    color: Tensor,
    size: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    return images.new_empty((_batch(images, rows), 3, *size), dtype=dtype)


def _images_forward(
    images: Tensor,
    rows: Tensor | None,
    box: Tensor | None,
    color: Tensor,
    size: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    out = _images_fake(images, rows, box, color, size, dtype)
    _fill(images, rows, box, color, out)
    return out


def _masks_fake(
    masks: Tensor, width: int, rows: Tensor | None, box: Tensor | None, size: Sequence[int]
) -> Tensor:
    dtype = torch.bool if masks.dtype == torch.int32 else masks.dtype
    return masks.new_empty((_batch(masks, rows), *size), dtype=dtype)


def _masks_forward(
    masks: Tensor, width: int, rows: Tensor | None, box: Tensor | None, size: Sequence[int]
) -> Tensor:
    masks = _with_dense_rows(masks)
    out = _masks_fake(masks, width, rows, box, size)
    (rows, rows_address), (box, box_address) = _dense(rows), _dense(box)
    _launch.launch(
        "crop_masks", masks.device, *_masks.fields(masks, width), masks.shape[0], rows_address, box_address,
        *out.shape, out.data_ptr(),
    )  # fmt: skip
    return out


_crop_images = _launch.operator(
    "crop_images(Tensor images, Tensor? rows, Tensor? box, Tensor color, SymInt[] size, ScalarType dtype)"
    " -> Tensor",
    _images_forward,
    _images_fake,
)
_crop_masks = _launch.operator(
    # width: of the masks, which are bytes or the words of a BitMask.
    "crop_masks(Tensor masks, SymInt width, Tensor? rows, Tensor? box, SymInt[] size) -> Tensor",
    _masks_forward,
    _masks_fake,
)


def crop_images(
    images: Tensor,
    rows: Tensor | None,
    box: Tensor | None,
    color: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype,
    out: Tensor | None,
) -> Tensor:
    if not takes(images):
        result = reference.crop_images(images, rows, box, color, size).to(dtype)
    elif out is None or torch.compiler.is_compiling() or not _launch.plain((images, rows, box, color, out)):
        result = _crop_images(images, rows, box, color, size, dtype)
    else:
        _fill(images, rows, box, color, out)
        if not out.is_inference():
            torch.autograd.graph.increment_version(out)  # for what autograd has kept of it
        return out
    return result if out is None else out.copy_(result)


def crop_masks(
    masks: Tensor, width: int, rows: Tensor | None, box: Tensor | None, size: tuple[int, int]
) -> Tensor:
    """`masks`: bytes, or the words of a BitMask."""
    if not takes(masks):
        pixels = _masks.unpacked(masks, width) if masks.dtype == torch.int32 else masks
        return reference.crop_masks(pixels, rows, box, size)
    result: Tensor = _crop_masks(masks, width, rows, box, size)
    return result
