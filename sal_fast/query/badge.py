"""BADGE: D^2 sampling on hallucinated last-layer gradients (Ash et al. 2019; paper, App. A.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.query.pool import ROWS, Pool, Query, in_order, shown

NEEDS = frozenset({"logits", "features"})


def select(pool: Pool, k: int, seed: int) -> Query:
    with shown("badge", pool, k) as progress:
        probs, features = _softmax(pool.need("logits")), pool.need("features")
        picks = ops.badge(
            probs, features, k, seed=seed, device=pool.device, progress=progress, group=pool.group
        )
    return in_order(picks)


def _softmax(logits: Tensor) -> Tensor:
    """Taken in float64 block by block, kept in float32, or in float64 for float64 logits."""
    kept = torch.float64 if logits.dtype == torch.float64 else torch.float32
    probs = torch.empty(logits.shape, dtype=kept, device=logits.device)
    for into, rows in zip(probs.split(ROWS), logits.split(ROWS), strict=True):
        into.copy_(rows.double().softmax(1))
    return probs
