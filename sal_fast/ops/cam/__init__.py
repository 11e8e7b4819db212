"""Class activation maps of a network that ends in global average pooling and one linear layer."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from sal_fast._util.words import PROBES, Probe
from sal_fast.ops import _checks
from sal_fast.ops.cam import registration
from sal_fast.ops.minmax_normalize import minmax_normalize

Layout = Literal["nchw", "nhwc"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class CamHead(NamedTuple):
    """What `cam_head` returns."""

    logits: Tensor  # [B, K]
    cam: Tensor  # [B, h, w]
    pooled: Tensor  # [B, C]
    classes: Tensor  # int64 [B]: whose map `cam` is


def cam(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    probe: Probe = "cam",
    normalize: bool = False,
    layout: Layout = "nchw",
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
        features: [B, C, h, w], float32, float16, bfloat16 or float64. Contiguous and channels_last features
            are read as they lie, and so are batch slices of them and views whose channels or pixels are
            contiguous; others are copied.
        weight: [K, C], the linear layer's. Its dtype may be another of the first three (float32 arithmetic);
            float64 goes with float64.
        target: int64 [B], the class of each image, 0..K-1.
        probe: see above.
        normalize: min-max normalise each map (see `minmax_normalize`).
        layout: `nhwc` where features are [B, h, w, C] (Swin's; unflatten a ViT's [B, T, C]).

    Returns:
        [B, h, w], float32 (float64 for float64). Differentiable in `features` and `weight`, once; ReLU's
        derivative at 0 is 0. NaN and infinities propagate.

    Raises:
        TypeError, ValueError: types, shapes, an unknown probe or layout; on the CPU also a class out of
            range. On a GPU it makes its image's map NaN.

    Source: paper Sec. 3 (CAM, Zhou et al. 2016) and App. H; docs/method.md.
    """
    features = _checked("cam", features, weight, None, target, probe, layout)
    maps = registration.cam(features, weight, target, probe)[0]
    return minmax_normalize(maps) if normalize else maps


def cam_head(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor | None = None,
    *,
    probe: Probe = "cam",
    layout: Layout = "nchw",
) -> CamHead:
    """Global average pool, linear layer, and the map of one class per image.

    `pooled = mean_ij F`, `logits = pooled W' + b`, and `cam` as the function of that name gives it. Where the
    class is known, pooled features and map come from one read of the features (two for gradcam++ and where
    the class must be predicted first); their gradient is the sum of two outer products and reads them at
    most once, for the weight's.

    Args:
        features, weight, probe, layout: see `cam`.
        bias: [K], of any dtype that `weight` may have, or None.
        target: int64 [B], the class whose map is made, or None: the predicted one, the lowest on a tie.

    Returns:
        `CamHead(logits [B, K], cam [B, h, w], pooled [B, C], classes int64 [B])`, float32 (float64 for
        float64), under autocast too. All but `classes` differentiable in `features`, `weight` and `bias`,
        once; the gradient to `features` has their dtype and memory format.

    Raises:
        As `cam`.

    Source: paper Sec. 3; docs/method.md.
    """
    features = _checked("cam_head", features, weight, bias, target, probe, layout)
    logits, maps, pooled, predicted = registration.cam_head(features, weight, bias, target, probe)
    return CamHead(logits, maps, pooled, predicted if target is None else target)


def _checked(
    op: str,
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor | None,
    probe: str,
    layout: str,
) -> Tensor:
    """The features as [B, C, h, w], after every check of types and shapes."""
    given = {"features": features, "weight": weight} | ({} if bias is None else {"bias": bias})
    _checks.floating(op, **given)
    _checks.together(op, **given, target=target)
    for name, value in given.items():
        if value.dtype not in _DTYPES:
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
            raise TypeError(f"{op}: {name} must be of dtype {names}, got {value.dtype}")
    if len({value.dtype == torch.float64 for value in given.values()}) > 1:
        found = ", ".join(f"{name} {value.dtype}" for name, value in given.items())
        raise TypeError(f"{op}: expected float64 for all or none, got {found}")
    _checks.choice(op, "probe", probe, PROBES)
    _checks.choice(op, "layout", layout, LAYOUTS)
    _checks.shape(op, "features", features, None, None, None, None)
    if layout == "nhwc":
        features = features.permute(0, 3, 1, 2)
    if 0 in features.shape[1:]:
        raise ValueError(
            f"{op}: features must have a channel and a pixel, got {list(features.shape)} as [B, C, h, w]"
        )
    _checks.shape(op, "weight", weight, None, features.shape[1])
    if len(weight) == 0:
        raise ValueError(f"{op}: weight must have at least one class, got {list(weight.shape)}")
    if bias is not None:
        _checks.shape(op, "bias", bias, len(weight))
    if target is not None:
        _checks.label_type(op, "target", target, len(features))
    return features
