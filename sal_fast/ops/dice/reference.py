"""Dice of two masks, in plain torch."""

import torch
from torch import Tensor


def dice(first: Tensor, second: Tensor, empty: float) -> Tensor:
    """See `sal_fast.ops.dice`. Both masks are bool [B, H, W]; `empty` is the Dice of two empty masks."""
    both = (first & second).flatten(1).sum(1)
    return quotient(both, first.flatten(1).sum(1) + second.flatten(1).sum(1), empty)


def quotient(both: Tensor, sizes: Tensor, empty: float) -> Tensor:
    """2 both / sizes of integers, in float32. It is `empty` where sizes is 0."""
    return torch.where(sizes > 0, 2 * both / sizes, empty).float()
