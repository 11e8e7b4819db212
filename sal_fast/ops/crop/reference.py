"""Crops of stored images, in plain torch. The kernels are tested against it."""

import torch
from torch import Tensor

# Places are integers in units of 2^-32 of a stored pixel, as in csrc/include/sal_fast/crop.h.
_PIXEL = 1 << 32
_FARTHEST = 1 << 14


def _places(low: Tensor, high: Tensor, pixels: int, out: int) -> Tensor:
    """The centres of the crop's pixels, counted from the edge of a side of `pixels`; int64 [B, out]."""
    start, end = (edge.double().nan_to_num(0).clamp(-_FARTHEST, _FARTHEST) for edge in (low, high))
    step = (end - start) * pixels / out
    first = ((start * pixels + 0.5 * step) * _PIXEL).round().long()
    return first[:, None] + torch.arange(out, device=low.device) * (step * _PIXEL).round().long()[:, None]


def _chosen(
    stored: Tensor, rows: Tensor | None, box: Tensor | None
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """The images [B, H, W, ...], the edges of their boxes, and which of them have a row and a finite box."""
    if rows is None:
        rows = torch.arange(stored.shape[0], device=stored.device)
    if box is None:
        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=stored.device).expand(len(rows), -1)
    valid = (rows >= 0) & (rows < stored.shape[0]) & box.isfinite().all(1)
    return stored.index_select(0, rows.clamp(0, max(stored.shape[0] - 1, 0))), box.unbind(1), valid


def crop_images(
    images: Tensor, rows: Tensor | None, box: Tensor | None, color: Tensor, size: tuple[int, int]
) -> Tensor:
    """See `sal_fast.ops.crop_images`. The result has the dtype of `color`."""
    pixels, (left, top, right, bottom), valid = _chosen(images, rows, box)
    pixels = pixels.to(color.dtype)
    for dim, low, high in ((2, left, right), (1, top, bottom)):
        side, out = pixels.shape[dim], size[dim - 1]
        place = (_places(low, high, side, out) - _PIXEL // 2).clamp(0, (side - 1) * _PIXEL)
        shape = (-1, 1, out, 1) if dim == 2 else (-1, out, 1, 1)
        cell = (place >> 32).view(shape)
        weight = ((place & (_PIXEL - 1)).to(color.dtype) / _PIXEL).view(shape)
        a = torch.take_along_dim(pixels, cell, dim)
        b = torch.take_along_dim(pixels, (cell + 1).clamp(max=side - 1), dim)
        pixels = a + weight * (b - a)
    color = color.view(-1, 1, 3, 4)
    result = (pixels @ color[..., :3].mT + color[..., None, :, 3]).movedim(3, 1)
    return torch.where(valid[:, None, None, None], result, torch.nan).contiguous()


def crop_masks(masks: Tensor, rows: Tensor | None, box: Tensor | None, size: tuple[int, int]) -> Tensor:
    """See `sal_fast.ops.crop_masks`. The masks are unpacked."""
    pixels, (left, top, right, bottom), valid = _chosen(masks, rows, box)
    for dim, low, high in ((2, left, right), (1, top, bottom)):
        side, out = pixels.shape[dim], size[dim - 1]
        place = _places(low, high, side, out) + out  # in units of 2^-32: a place that may lie on an edge does
        at = place.clamp(0, side * _PIXEL - 1) >> 32
        pixels = torch.take_along_dim(pixels, at[:, None, :] if dim == 2 else at[:, :, None], dim)
    return pixels * valid[:, None, None]
