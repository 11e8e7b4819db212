"""The N largest pixels by a stable sort, in plain torch."""

import torch
from torch import Tensor


def enlarged(cam: Tensor, size: tuple[int, int]) -> Tensor:
    """The CAM [B, h, w] enlarged to `size`: bilinear, half-pixel centres, rows before columns.

    Each blend is a + t (b - a). So equal neighbours give equal pixels, and pixels between two cells are in
    the order of their places.
    """
    for dim, pixels in ((1, size[0]), (2, size[1])):
        cells = cam.shape[dim]
        at = torch.arange(pixels, device=cam.device)
        place = ((2 * at + 1) * cells - pixels).clamp(min=0)  # in units of 1 / (2 pixels) of a cell
        first = place // (2 * pixels)
        weight = (place % (2 * pixels)).to(cam.dtype) / (2 * pixels)
        a = cam.index_select(dim, first)
        b = cam.index_select(dim, (first + 1).clamp(max=cells - 1))
        cam = a + (weight[:, None] if dim == 1 else weight) * (b - a)
    return cam


def nearest(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The mask [B, H, W] read at `size`: pixel i of a side stands for floor(i in / out)."""
    for dim, pixels in ((1, size[0]), (2, size[1])):
        if mask.shape[dim] != pixels:
            at = torch.arange(pixels, device=mask.device) * mask.shape[dim] // pixels
            mask = mask.index_select(dim, at)
    return mask


def topn_mask(maps: Tensor, n: Tensor) -> Tensor:
    """See `sal_fast.ops.topn_mask`. The mask is empty where n is out of range or the map has NaN."""
    flat = maps.flatten(1)
    valid = (n >= 0) & (n <= flat.shape[1]) & ~flat.isnan().any(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    first = torch.arange(flat.shape[1], device=maps.device)[None] < torch.where(valid, n, 0)[:, None]
    return torch.zeros_like(flat, dtype=torch.bool).scatter(1, order, first).view(maps.shape)


def topn_hits(cam: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The number of pixels in both the mask and the top N of the enlarged CAM, and N; int64 [B] each."""
    n = mask.flatten(1).sum(1)
    top = topn_mask(enlarged(cam, (mask.shape[1], mask.shape[2])), n)
    return (top & mask).flatten(1).sum(1), n
