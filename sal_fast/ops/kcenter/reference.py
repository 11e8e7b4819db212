"""Greedy k-center in plain torch, with one pass over the pool for every pick."""

import torch
from torch import Tensor


def squared_distances(features: Tensor, center: Tensor) -> Tensor:
    """|x_i - c|^2, float64 [N]. It is a sum of squares, so that nothing cancels."""
    return (features - center).square().sum(1)


def kcenter(features: Tensor, k: int, centers: Tensor | None) -> Tensor:
    """See `sal_fast.ops.kcenter`."""
    picks: list[int] = []
    nearest = torch.full((len(features),), float("inf"), dtype=torch.float64, device=features.device)
    for center in centers if centers is not None else ():
        nearest = torch.minimum(nearest, squared_distances(features, center))
    unpicked = torch.ones(len(features), dtype=torch.bool, device=features.device)
    for _ in range(k):
        first = centers is None and not picks
        score = features.square().sum(1) if first else nearest
        pick = int(torch.where(unpicked, score, -1.0).argmax())  # argmax: the first of equals
        picks.append(pick)
        unpicked[pick] = False
        nearest = torch.minimum(nearest, squared_distances(features, features[pick]))
    return torch.tensor(picks, dtype=torch.int64, device=features.device)
