"""Class activation maps of a network that ends in global average pooling and one linear layer."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from sal_fast._util.words import PROBES, Probe
from sal_fast.ops import _checks
from sal_fast.ops.cam import reference, registration
from sal_fast.ops.minmax_normalize import minmax_normalize

Layout = Literal["nchw", "nhwc"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class CamHead(NamedTuple):
    """The result of `cam_head`."""

    logits: Tensor  # [B, K]
    cam: Tensor  # [B, h, w]
    pooled: Tensor  # [B, C]
    classes: Tensor  # int64 [B]: the class whose map `cam` is


def cam(
    features: Tensor,
    weight: Tensor,
    target: Tensor | int,
    *,
    probe: Probe = "cam",
    normalize: bool = False,
    layout: Layout = "nchw",
) -> Tensor:
    """The map `sum_k w_k F_k` of one class per image, or of several, at the features' resolution.

    If a global average pool and one linear layer `W` follow the features, `d logit / d F = W / (hw)` is
    constant over space. So all four probes are weights of the same channels, and none needs a backward pass:

    ======== =================================================== ==========================
    probe    w_k                                                 then
    ======== =================================================== ==========================
    cam      `W[c,k]`                                            -
    hirescam `g_k = W[c,k] / (hw)`                               -
    gradcam  `g_k`                                               ReLU
    gradcam++ `relu(g_k) hw / (2 + S_k g_k)`, `S_k = sum_ij F_k` ReLU
    ======== =================================================== ==========================

    The bias plays no part. The denominator of Grad-CAM++ is kept at least 1e-3 from zero, which it may come
    near where features are negative.

    Args:
        features: [B, C, h, w], float32, float16, bfloat16 or float64. Contiguous and channels_last features,
            batch slices of them, and views whose channels or pixels are contiguous are read in place. Others
            are copied.
        weight: [K, C], the weight of the linear layer. It may have another dtype of the first three (the
            arithmetic is in float32), but float64 goes only with float64.
        target: int64 [B], the class of each image, 0..K-1; or one number for all images; or int64 [B, T] for
            T maps of each image. T maps are made in plain torch, from one read of the features.
        probe: see above.
        normalize: whether each map is min-max normalised (see `minmax_normalize`).
        layout: `nhwc` if the features are [B, h, w, C], as those of Swin. Unflatten a ViT's [B, T, C] first.

    Returns:
        [B, h, w] or [B, T, h, w], float32 (float64 for float64). It can be differentiated once, in `features`
        and `weight`; the derivative of ReLU at 0 is 0. NaN and infinities propagate.

    Raises:
        TypeError, ValueError: wrong types or shapes, an unknown probe or layout; on the CPU also a class out
            of range, which on a GPU makes the map of its image NaN.

    Source: paper Sec. 3 (CAM: Zhou et al. 2016) and App. H; docs/method.md.
    """
    if not isinstance(target, (Tensor, list, tuple)):
        _checks.a_tensor("cam", "features", features)
        one = _checks.integer("cam", "target", target)
        target = torch.full((features.shape[0],), one, device=features.device)
    features = _checked("cam", {"features": features, "weight": weight}, target, probe, layout)
    if target.ndim == 2:
        _checks.label_values("cam", "target", target.flatten(), weight.shape[0])
        maps = reference.cam(features, weight, target, probe)
    else:
        maps = registration.cam_head(features, weight, None, target, probe, False)[1]
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

    `pooled = mean_ij F`, `logits = pooled W' + b`, and `cam` is what the function of that name gives. The
    pooled features and the map come from one read of the features, or from two for gradcam++ and for a class
    that must be predicted first. The gradient to the features is a sum of two outer products. The backward
    reads the features at most once, for the gradient to the weight.

    Args:
        features, weight, probe, layout: see `cam`.
        bias: [K], of any dtype that `weight` may have, or None.
        target: int64 [B], the class whose map is made. None means the predicted class, the lowest on a tie.

    Returns:
        `CamHead(logits [B, K], cam [B, h, w], pooled [B, C], classes int64 [B])`, float32 (float64 for
        float64), under autocast too. All but `classes` can be differentiated once, in `features`, `weight`
        and `bias`. The gradient to `features` has their dtype and memory format.

    Raises:
        TypeError, ValueError: as `cam`.

    Source: paper Sec. 3; docs/method.md.
    """
    given = {"features": features, "weight": weight} | ({} if bias is None else {"bias": bias})
    features = _checked("cam_head", given, target, probe, layout)
    logits, maps, pooled, predicted = registration.cam_head(features, weight, bias, target, probe, True)
    return CamHead(logits, maps, pooled, predicted if target is None else target)


def _checked(op: str, given: dict[str, Tensor], target: Tensor | None, probe: str, layout: str) -> Tensor:
    """The features as [B, C, h, w], after all checks of types and shapes."""
    _checks.computed(op, **given)
    _checks.together(op, **given, target=target)
    if len({value.dtype == torch.float64 for value in given.values()}) > 1:
        found = ", ".join(f"{name} {value.dtype}" for name, value in given.items())
        raise TypeError(f"{op}: expected float64 for all or none, got {found}")
    _checks.choice(op, "probe", probe, PROBES)
    _checks.choice(op, "layout", layout, LAYOUTS)
    features, weight = given["features"], given["weight"]
    _checks.shape(op, "features", features, None, None, None, None)
    if layout == "nhwc":
        features = features.permute(0, 3, 1, 2)
    if 0 in features.shape[1:]:
        raise ValueError(
            f"{op}: features must have a channel and a pixel, got {list(features.shape)} as [B, C, h, w]"
        )
    _checks.shape(op, "weight", weight, None, features.shape[1])
    if weight.shape[0] == 0:
        raise ValueError(f"{op}: weight must have at least one class, got {list(weight.shape)}")
    if "bias" in given:
        _checks.shape(op, "bias", given["bias"], weight.shape[0])
    if target is not None and op == "cam" and target.ndim == 2:
        _checks.tensor(op, torch.int64, target=target)
        _checks.shape(op, "target", target, features.shape[0], None)
    elif target is not None:
        _checks.label_type(op, "target", target, features.shape[0])
    return features
