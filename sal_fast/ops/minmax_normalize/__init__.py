"""Min-max normalisation of maps."""

from __future__ import annotations

import torch
from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops.minmax_normalize import reference, registration


def minmax_normalize(maps: Tensor) -> Tensor:
    """`(M - min M) / (max M - min M)` per map; a flat map becomes zeros with zero gradient.

    Flat: `max - min <= 8 eps max|M|`, eps of the arithmetic's precision. Ties at the extremes share the
    gradient equally.

    Args:
        maps: [..., h, w], floating; fp16 and bf16 are computed in float32.

    Returns:
        The same shape, in [0, 1]; float32 (float64 for float64). A map with NaN is NaN. Differentiable, once;
        the gradient has the dtype of `maps`.

    Raises:
        TypeError: maps is no tensor of a floating dtype. ValueError: fewer than two dimensions.

    Source: docs/method.md, "The loss".
    """
    _checks.floating("minmax_normalize", maps=maps)
    if maps.ndim < 2:
        raise ValueError(f"minmax_normalize: maps must have shape [..., h, w], got {list(maps.shape)}")
    return registration.minmax_normalize(maps)


def is_flat(maps: Tensor) -> Tensor:
    """Which maps [..., h, w] have no extremes to speak of (see `minmax_normalize`); bool [...]."""
    return reference.is_flat(maps if maps.dtype == torch.float64 else maps.float())
