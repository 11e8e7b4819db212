"""BADGE: D^2 sampling on hallucinated last-layer gradients (Ash et al. 2019; paper, App. A.1)."""

import torch
from torch import Tensor

from sal_fast import ops, seeds
from sal_fast.query.criterion import needs
from sal_fast.query.pool import ROWS, Pool
from sal_fast.query.shown import shown


@needs("logits", "features")
def select(pool: Pool, k: int, seed: int) -> Tensor:
    """Select by `ops.badge`. If all gradients are zero they tell nothing, and images are drawn uniformly."""
    probs = _softmax(pool.logits, pool.features.device)
    if pool.ties == "key" and not _any_gradient(probs, pool.features):
        order = seeds.stream(seed, "badge-without-gradients").permutation(len(pool))
        return torch.from_numpy(order[:k])
    with shown("badge", pool, k) as progress:
        return ops.badge(
            probs, pool.features, k, seed=seed, device=pool.device, progress=progress, group=pool.group
        )


def _softmax(logits: Tensor, device: torch.device) -> Tensor:
    """The softmax of the logits, computed block by block in float64.

    The result is kept in float32, or in float64 for float64 logits. It lies where the features lie, which in
    a run on a GPU may be the host's memory.
    """
    kept = torch.float64 if logits.dtype == torch.float64 else torch.float32
    probs = torch.empty(logits.shape, dtype=kept, device=device)
    for into, rows in zip(probs.split(ROWS), logits.split(ROWS), strict=True):
        into.copy_(rows.double().softmax(1))
    return probs


def _any_gradient(probs: Tensor, features: Tensor) -> bool:
    """True if some (p - onehot(argmax p)) x e is not zero: its p is not one-hot, and its e is not zero."""
    return any(
        bool(((p.count_nonzero(1) > 1) & (e != 0).any(1)).any())
        for p, e in zip(probs.split(ROWS), features.split(ROWS), strict=True)
    )
