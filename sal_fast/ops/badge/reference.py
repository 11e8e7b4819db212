"""BADGE in plain torch, with one pass over the pool for every pick."""

import torch
from torch import Tensor

ROUNDING = 64 * torch.finfo(torch.float64).eps


def badge(probs: Tensor, features: Tensor, k: int, uniform: list[float]) -> Tensor:
    """The method `sequential` of `sal_fast.ops.badge` in float64. `uniform[t]` makes pick t > 0."""
    count = len(probs)
    if k == 0:
        return torch.empty(0, dtype=torch.int64, device=probs.device)
    residual = probs.clone()
    residual[torch.arange(count), probs.argmax(1)] -= 1
    norms = residual.square().sum(1) * features.square().sum(1)

    unpicked = torch.ones(count, dtype=torch.bool, device=probs.device)
    distances = torch.full((count,), float("inf"), dtype=torch.float64, device=probs.device)
    pick = int(norms.argmax())
    picks = [pick]
    for draw in uniform[1:k]:
        unpicked[pick] = False
        inner = (residual @ residual[pick]) * (features @ features[pick])
        scale = norms + norms[pick]
        squared = scale - 2 * inner
        # A distance that is zero but for rounding is zero: equal rows are never told apart.
        squared = torch.where(squared <= ROUNDING * scale, 0.0, squared)
        distances = torch.minimum(distances, squared)
        distances[pick] = 0.0
        cumulative = distances.cumsum(0)
        total = float(cumulative[-1])
        if total > 0:
            pick = int(torch.searchsorted(cumulative, draw * total, right=True))
            pick = min(pick, int(distances.nonzero()[-1]))  # because draw * total may round up to total
        else:
            pick = int(unpicked.int().argmax())
        picks.append(pick)
    return torch.tensor(picks, dtype=torch.int64, device=probs.device)
