"""BADGE: k-means++ on hallucinated last-layer gradients."""

from __future__ import annotations

from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops.badge import reference


def badge(probs: Tensor, features: Tensor, k: int, *, seed: int) -> Tensor:
    """Pick rows by D^2 sampling on `g_i = (p_i - onehot(argmax p_i)) x e_i`, factorised.

    g is an outer product of q = p - onehot and the feature e, so `|g|^2 = |q|^2 |e|^2` and
    `g.g' = (q.q')(e.e')`: the C d vectors are never formed. The first pick has the largest norm (lowest index
    on a tie); each next is drawn with chance proportional to its squared distance to the nearest pick. When
    all distances are zero the lowest unpicked index follows.

    Args:
        probs: [N, C], floating, softmax outputs.
        features: [N, d], floating, penultimate features.
        k: how many; min(k, N) rows are picked, none twice.
        seed: 0..2^64-1, keys the draws: one number per pick, the same on every device.

    Returns:
        int64 [min(k, N)], in the order picked. Work k N (C + d), float64 arithmetic.

    Raises:
        TypeError, ValueError: types and shapes, negative k; on the CPU NaN or infinity.

    Source: Ash et al. 2019; paper App. A.1.
    """
    _checks.floating("badge", probs=probs, features=features)
    _checks.together("badge", probs=probs, features=features)
    _checks.shape("badge", "probs", probs, None, None)
    _checks.shape("badge", "features", features, len(probs), None)
    if k < 0:
        raise ValueError(f"badge: k must be at least 0, got {k}")
    if probs.device.type == "cpu" and not bool(probs.isfinite().all() and features.isfinite().all()):
        raise ValueError("badge: probs or features contain NaN or infinity; expected finite numbers")
    return reference.badge(probs.double(), features.double(), min(k, len(probs)), seed)
