"""The probes in closed form and the linear head, in plain torch. The kernels are tested against it."""

import contextlib

import torch
from torch import Tensor

GUARD = 1e-3


def _compute(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _no_autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    known = torch.amp.is_autocast_available(x.device.type)  # it is not available for meta tensors
    return torch.autocast(x.device.type, enabled=False) if known else contextlib.nullcontext()


def cam(features: Tensor, weight: Tensor, target: Tensor, probe: str) -> Tensor:
    """See `sal_fast.ops.cam`. The target is [B] or [B, T]."""
    with _no_autocast(features):
        features, weight = _compute(features), _compute(weight)
        known = (target >= 0) & (target < weight.shape[0])
        kept = target.clamp(0, weight.shape[0] - 1).flatten()
        # Torch's vmap has no batch of empty indices, as in weight[kept].
        rows = weight.index_select(0, kept).view(*target.shape, weight.shape[1])
        rows = torch.where(known[..., None], rows, torch.nan)
        sums = "bchw,bc->bhw" if target.ndim == 1 else "bchw,btc->bthw"
        if probe == "cam":
            return torch.einsum(sums, features, rows)
        area = features.shape[-2] * features.shape[-1]
        gradient = rows / area
        if probe == "gradcam++":
            totals = features.sum((-2, -1))
            denominator = 2 + (totals if target.ndim == 1 else totals[:, None]) * gradient
            kept = torch.where(denominator < 0, -GUARD, GUARD).to(denominator)
            denominator = torch.where(denominator.abs() < GUARD, kept, denominator)
            gradient = gradient.relu() * area / denominator
        maps = torch.einsum(sums, features, gradient)
        return maps if probe == "hirescam" else maps.relu()


def cam_head(
    features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor | None, probe: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, maps, pooled features and the maps' classes; see `sal_fast.ops.cam_head`."""
    with _no_autocast(features):
        # They are converted once, so that the parts of each gradient are summed before they are rounded.
        features, weight = _compute(features), _compute(weight)
        pooled = features.mean((-2, -1))
        logits = torch.nn.functional.linear(pooled, weight, None if bias is None else _compute(bias))
    classes = logits.argmax(1) if target is None else target
    return logits, cam(features, weight, classes, probe), pooled, classes
