"""Greedy k-center (Core-Set)."""

from __future__ import annotations

from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops.kcenter import reference


def kcenter(features: Tensor, k: int, *, centers: Tensor | None = None) -> Tensor:
    """Pick rows one by one, each the farthest (L2) from all centres so far.

    `i_t = argmax_i min_{c in centres} |x_i - x_c|`; the lowest index wins a tie. Without given centres the
    first pick is the row of the largest norm. When all distances are zero the lowest unpicked index follows.

    Args:
        features: [N, d], floating, finite.
        k: how many; min(k, N) rows are picked, none twice.
        centers: [L, d], rows that are centres already (the labelled set).

    Returns:
        int64 [min(k, N)], in the order picked. Work k N d, memory N on top of the inputs (float64
        arithmetic: a chosen point's distance is set to zero, not computed).

    Raises:
        TypeError, ValueError: types and shapes, negative k; on the CPU NaN or infinity.

    Source: Sener and Savarese 2017; paper App. A.1.
    """
    _checks.floating("kcenter", features=features)
    _checks.shape("kcenter", "features", features, None, None)
    if centers is not None:
        _checks.floating("kcenter", centers=centers)
        _checks.shape("kcenter", "centers", centers, None, features.shape[1])
    if k < 0:
        raise ValueError(f"kcenter: k must be at least 0, got {k}")
    if features.device.type == "cpu" and not bool(features.isfinite().all()):
        raise ValueError("kcenter: features contain NaN or infinity; expected finite numbers")
    return reference.kcenter(features, min(k, len(features)), centers)
