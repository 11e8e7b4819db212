"""Closed-form probes, in plain torch."""

import torch
from torch import Tensor

GUARD = 1e-3


def cam(features: Tensor, weight: Tensor, target: Tensor, probe: str) -> Tensor:
    """See `sal_fast.ops.cam`."""
    rows = weight[target]
    if probe == "cam":
        return torch.einsum("bchw,bc->bhw", features, rows)
    area = features.shape[-2] * features.shape[-1]
    gradient = rows / area
    if probe == "gradcam++":
        denominator = 2 + features.sum((-2, -1)) * gradient
        kept = torch.where(denominator < 0, -GUARD, GUARD).to(denominator)
        denominator = torch.where(denominator.abs() < GUARD, kept, denominator)
        gradient = gradient.relu() * area / denominator
    maps = torch.einsum("bchw,bc->bhw", features, gradient)
    return maps if probe == "hirescam" else maps.relu()
