"""Min-max normalisation, in plain torch."""

import torch
from torch import Tensor


def extremes(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Minimum and maximum of each map, as [..., 1, 1]. Ties share the gradient of amin and amax."""
    return maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)


def is_flat(maps: Tensor) -> Tensor:
    """See `sal_fast.ops.is_flat`."""
    low, high = extremes(maps)
    number = torch.finfo(maps.dtype)
    least = (8 * number.eps * torch.maximum(low.abs(), high.abs())).clamp(min=number.tiny)
    return ((high - low <= least) & (high - low < torch.inf))[..., 0, 0]


def minmax_normalize(maps: Tensor) -> Tensor:
    """See `sal_fast.ops.minmax_normalize`."""
    if maps.numel() == 0:
        return maps
    low, high = extremes(maps)
    flat = is_flat(maps)[..., None, None]
    span = torch.where(high - low < torch.inf, high - low, torch.nan)
    return torch.where(flat, 0.0, (maps - low) / torch.where(flat, 1.0, span))
