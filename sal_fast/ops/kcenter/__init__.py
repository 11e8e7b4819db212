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
        int64 [min(k, N)], in the order picked. Work k N d; memory: the inputs in float64, and N d more.

    Raises:
        TypeError, ValueError: types and shapes, negative k; on the CPU NaN or infinity.

    Source: Sener and Savarese 2017; paper App. A.1.
    """
    _checks.floating("kcenter", features=features)
    _checks.together("kcenter", features=features, centers=centers)
    _checks.shape("kcenter", "features", features, None, None)
    if centers is not None:
        _checks.floating("kcenter", centers=centers)
        _checks.shape("kcenter", "centers", centers, None, features.shape[1])
        if len(centers) == 0:
            centers = None
    if k < 0:
        raise ValueError(f"kcenter: k must be at least 0, got {k}")
    for name, rows in (("features", features), ("centers", centers)):
        if rows is not None and rows.device.type == "cpu" and not bool(rows.isfinite().all()):
            raise ValueError(f"kcenter: {name} contain NaN or infinity; expected finite numbers")
    return reference.kcenter(
        features.double(), min(k, len(features)), None if centers is None else centers.double()
    )
