"""Min-max normalisation of maps."""

import torch
from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops.minmax_normalize import reference, registration


def minmax_normalize(maps: Tensor) -> Tensor:
    """`(M - min M) / (max M - min M)` of each map. A flat map becomes zeros, with zero gradient.

    A map is flat if `max - min <= max(8 eps max|M|, tiny)`, with the eps and the smallest normal number of
    the arithmetic's precision. Values that tie at an extreme share its gradient equally.

    Args:
        maps: [..., h, w], floating. float16 and bfloat16 are computed in float32.

    Returns:
        A tensor of the same shape, in [0, 1], float32 (float64 for float64). A map with NaN or an infinity is
        NaN, and so is one whose range is beyond the largest number. It can be differentiated once; the
        gradient has the dtype of `maps`.

    Raises:
        TypeError: maps is no tensor of a floating dtype.
        ValueError: maps has fewer than two dimensions.

    Source: docs/method.md, "The loss".
    """
    _checks.floating("minmax_normalize", maps=maps)
    if maps.ndim < 2:
        raise ValueError(f"minmax_normalize: maps must have shape [..., h, w], got {list(maps.shape)}")
    return registration.minmax_normalize(maps)


def is_flat(maps: Tensor) -> Tensor:
    """Which maps [..., h, w] are flat, as `minmax_normalize` defines it; bool [...]."""
    return reference.is_flat(maps if maps.dtype == torch.float64 else maps.float())
