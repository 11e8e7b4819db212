"""Class activation maps of a network that ends in global average pooling and one linear layer."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops.cam import reference
from sal_fast.ops.minmax_normalize import minmax_normalize

Probe = Literal["cam", "gradcam", "gradcam++", "hirescam"]
PROBES: tuple[Probe, ...] = get_args(Probe)


def cam(
    features: Tensor, weight: Tensor, target: Tensor, *, probe: Probe = "cam", normalize: bool = False
) -> Tensor:
    """The map `sum_k w_k F_k` of one class per image, at the features' resolution.

    With a global average pool and one linear layer `W` behind the features, `d logit / d F = W / (hw)` is
    constant over space, so all four probes are weights on the same channels and need no backward pass:

    ======== =================================================== ==========================
    probe    w_k                                                 then
    ======== =================================================== ==========================
    cam      `W[c,k]`                                            -
    hirescam `g_k = W[c,k] / (hw)`                               -
    gradcam  `g_k`                                               ReLU
    gradcam++ `relu(g_k) hw / (2 + S_k g_k)`, `S_k = sum_ij F_k` ReLU
    ======== =================================================== ==========================

    No bias enters. Grad-CAM++'s denominator is kept at least 1e-3 from zero, where features are negative.

    Args:
        features: [B, C, h, w], floating.
        weight: [K, C], the linear layer's, of the same dtype.
        target: int64 [B], the class of each image, 0..K-1.
        probe: see above.
        normalize: min-max normalise each map (see `minmax_normalize`).

    Returns:
        [B, h, w] in the promoted dtype. Differentiable in `features` and `weight`.

    Raises:
        TypeError, ValueError: types, shapes, an unknown probe; on the CPU also a class out of range.

    Source: paper Sec. 3 (CAM, Zhou et al. 2016) and App. H; docs/method.md.
    """
    _checks.floating("cam", features=features, weight=weight)
    _checks.together("cam", features=features, weight=weight, target=target)
    if features.dtype != weight.dtype:
        raise TypeError(f"cam: expected one dtype, got features {features.dtype}, weight {weight.dtype}")
    _checks.shape("cam", "features", features, None, None, None, None)
    _checks.shape("cam", "weight", weight, None, features.shape[1])
    _checks.labels("cam", "target", target, len(features), len(weight))
    _checks.choice("cam", "probe", probe, PROBES)
    maps = reference.cam(features, weight, target, probe)
    return minmax_normalize(maps) if normalize else maps
