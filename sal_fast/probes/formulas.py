"""The probes that are computed from gradients g = d logit / d F."""

import torch
from torch import Tensor

from sal_fast import ops

GUARD = 1e-3  # as in sal_fast.ops.cam


def gradient_map(features: Tensor, gradient: Tensor, probe: str) -> Tensor:
    """Maps [B, h, w] from features and gradient [B, C, h, w]; `sal_fast.probes.explain` defines them."""
    if probe == "cam":
        weights, images = gradient.sum((-2, -1)), torch.arange(len(features), device=features.device)
        return ops.cam(features, weights, images) if len(features) else features.sum(1)
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
