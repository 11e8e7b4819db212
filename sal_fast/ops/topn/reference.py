"""Top-N by a stable sort, in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor


def topn_mask(maps: Tensor, n: Tensor) -> Tensor:
    """See `sal_fast.ops.topn_mask`."""
    flat = maps.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    first = torch.arange(flat.shape[1], device=maps.device)[None] < n[:, None]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, first).view(maps.shape)


def topn_hits(cam: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels in both the mask and the enlarged CAM's top N, and N: int64 [B] each."""
    n = mask.flatten(1).sum(1)
    enlarged = F.interpolate(cam[:, None], tuple(mask.shape[-2:]), mode="bilinear", align_corners=False)[:, 0]
    return (topn_mask(enlarged, n) & mask).flatten(1).sum(1), n
