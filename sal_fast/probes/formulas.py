"""The probes from gradients: g = d logit / d F at every pixel."""

import torch
from torch import Tensor

GUARD = 1e-3  # as in sal_fast.ops.cam


def gradient_map(features: Tensor, gradient: Tensor, probe: str) -> Tensor:
    """[B, h, w] of features and gradient [B, C, h, w]; the definitions stand at `sal_fast.probes.explain`."""
    if probe == "hirescam":
        return (gradient * features).sum(1)
    if probe == "gradcam":
        weights = gradient.mean((-2, -1))
    else:
        denominator = 2 + features.sum((-2, -1), keepdim=True) * gradient
        kept = torch.where(denominator < 0, -GUARD, GUARD).to(denominator)
        denominator = torch.where(denominator.abs() < GUARD, kept, denominator)
        weights = (gradient.relu() / denominator).sum((-2, -1))
    return torch.einsum("bchw,bc->bhw", features, weights).relu()
