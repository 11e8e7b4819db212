"""A training step of linear heads on frozen features: losses and gradients from one read of them."""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from sal_fast._util.words import CAM_CLASSES, PROBES, SALIENCY_KINDS, CamClass, Probe, SaliencyKind
from sal_fast.ops import _checks, _launch
from sal_fast.ops.bit_mask import BitMask
from sal_fast.ops.head_step import registration
from sal_fast.ops.saliency_loss import resolution, stored_target
from sal_fast.ops.ssim import BORDERS, Border


class HeadStep(NamedTuple):
    """The result of `head_step`, for M heads with K classes and a batch of B images."""

    loss: Tensor  # [M]
    logits: Tensor  # [M, B, K]
    cam: Tensor  # [M, B, h, w]
    grad_weight: Tensor  # [M, K, C]: the gradient of each head's loss by its weight
    grad_bias: Tensor  # [M, K]


def head_step(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    target: Tensor | BitMask | None,
    *,
    alpha: Sequence[float],
    rows: Tensor | None = None,
    has_map: Tensor | None = None,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    probe: Probe = "cam",
    cam_class: CamClass = "labelled",
    map_size: int | None = None,
    window: int | None = None,
    border: Border = "valid",
    kind: SaliencyKind = "ssim_l1",
) -> HeadStep:
    """The losses of M linear heads on one batch of frozen features, and their gradients.

    For each head m, with its own weight W, bias b and alpha a:

        pooled_i = mean_p F_i[p]      logits_i = W pooled_i + b      cam_i = sum_c w_c F_i[:, c]
        loss = 1/B sum_i [ a CE_i + (1 - a) has_map_i Ls_i ]

    The weights w of the map are those of the probe for the image's class (see `cam`), and `Ls` is
    `saliency_loss`. So the loss is that of `cam_head` followed by `cyborg_loss`. `CE` is the cross-entropy of
    a target that is smoothed and weighted:

        CE_i = -sum_k q_ik log softmax(logits_i)_k      q_ik = v_k ((1 - s) [k = label_i] + s / K)

    with the class weights v (ones if there are none) and the label smoothing s. This is the cross-entropy of
    torch with `reduction="sum"`. The mean divides by B, whatever the class weights are. A term with a factor
    of 0 is left out: with alpha 1 no map is looked at, and with alpha 0 no logit.

    The features are read from memory once, for all heads. The gradients are made in the same call, so
    autograd is not needed:

        step = ops.head_step(features, weight, bias, labels, target, rows=batch, alpha=(0.9, 0.1))
        weight.grad, bias.grad = step.grad_weight, step.grad_bias
        optimizer.step()

    Optimizers of torch work elementwise, so one of them trains all heads side by side.

    Args:
        features: [N, h, w, C], float32, float16, bfloat16 or float64, contiguous, in memory or mapped from a
            file. They are never copied.
        weight: [M, K, C], float32 (float64 for float64 features).
        bias: [M, K], of the dtype of `weight`.
        labels: int64 [N], 0..K-1.
        target: [N, H, W] of any size; bool, uint8 or floating, or a `BitMask`. Maps are averaged over areas
            to h x w in every call. Maps of that size already (float, averaged once) save most of that time.
            None means that no image has a map.
        alpha: M numbers in [0, 1].
        rows: int64 [B], 0..N-1, the images of the batch. They choose among features, labels, target and
            has_map, and may repeat. None means all N in their order.
        has_map: bool [N]. None means that all images have a map.
        class_weight: [K], of the dtype of `weight`, finite and not negative. None means ones.
        label_smoothing: s, in [0, 1].
        probe: see `cam`.
        cam_class: the class whose map is compared: `labelled`, or `predicted` (the largest logit of the head,
            the lowest class on a tie), which is a constant for the gradient.
        map_size, window, border, kind: see `saliency_loss`.

    Returns:
        `HeadStep(loss [M], logits [M, B, K], cam [M, B, h, w], grad_weight [M, K, C], grad_bias [M, K])`, of
        the dtype of `weight`. An empty batch gives zeros. Nothing in it can be differentiated; the backward
        of a loss raises NotImplementedError. `cam` is the map of every head, also at alpha 1.

        The kernel takes features of at most 1,024 pixels and compares maps at their resolution. Otherwise
        (a `map_size`, float64) the step is composed of `cam_head` and `saliency_loss`, and copies the batch.
        The bits of a kernel's result do not depend on the number of threads.

    Raises:
        TypeError, ValueError: wrong types or shapes, features that are not contiguous, an alpha or a label
            smoothing outside [0, 1], and as `saliency_loss`; on the CPU also a class weight that is negative
            or not finite, and a label or a row out of range, which on a GPU makes the losses and gradients
            NaN.

    Source: paper Sec. 3, Eq. 1; docs/method.md. Label smoothing: Szegedy et al. 2016.
    """
    _check_heads(features, weight, bias, class_weight)
    _check_batch(features, labels, rows, weight.shape[1])
    _checks.choice("head_step", "probe", probe, PROBES)
    _checks.choice("head_step", "cam_class", cam_class, CAM_CLASSES)
    _checks.choice("head_step", "border", border, BORDERS)
    _checks.choice("head_step", "kind", kind, SALIENCY_KINDS)
    numbers = [float(label_smoothing), *map(float, alpha)]
    if len(numbers) != 1 + len(weight):
        raise ValueError(f"head_step: alpha must have a number for each of {len(weight)} heads, got {alpha}")
    for name, value in zip(("label_smoothing", *["alpha"] * len(weight)), numbers, strict=True):
        if not 0 <= value <= 1:
            raise ValueError(f"head_step: {name} must lie in [0, 1], got {value}")
    words = None if target is None else stored_target("head_step", target, has_map, len(features))
    given = {"target": words, "has_map": has_map, "class_weight": class_weight}
    _checks.together(
        "head_step", features=features, weight=weight, bias=bias, labels=labels, rows=rows, **given
    )
    height, width, window = resolution("head_step", (features.shape[1], features.shape[2]), map_size, window)
    sizes = (0 if target is None else target.shape[2], height, width, window)
    how = (kind, border, probe, cam_class)
    plain = (x.detach() for x in (features, weight, bias))
    tensors = (labels, words, rows, has_map, class_weight)
    step = HeadStep(*registration.head_step(*plain, *tensors, numbers, sizes, how))
    if torch.compiler.is_compiling():
        return step
    inputs = [x for x in (features, weight, bias) if x.requires_grad]
    message = "head_step: the gradients are made already; take grad_weight and grad_bias"
    return step._replace(loss=_launch.without_derivative(message, step.loss, *inputs)) if inputs else step


def _check_heads(features: Tensor, weight: Tensor, bias: Tensor, class_weight: Tensor | None) -> None:
    _checks.computed("head_step", features=features)
    _checks.shape("head_step", "features", features, None, None, None, None)
    if 0 in features.shape[1:]:
        raise ValueError(
            f"head_step: features must have a channel and a pixel, got {list(features.shape)} as [N, h, w, C]"
        )
    if not features.is_contiguous():
        raise ValueError(
            f"head_step: features must be contiguous as [N, h, w, C], got strides {list(features.stride())}; "
            "call .contiguous() once, as a copy in every step would take longer than the step"
        )
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    _checks.tensor("head_step", dtype, weight=weight, bias=bias)
    _checks.shape("head_step", "weight", weight, None, None, features.shape[3])
    heads, classes, _ = weight.shape
    if heads == 0 or classes == 0:
        raise ValueError(f"head_step: weight must have a head and a class, got {list(weight.shape)}")
    _checks.shape("head_step", "bias", bias, heads, classes)
    if class_weight is not None:
        _checks.tensor("head_step", dtype, class_weight=class_weight)
        _checks.shape("head_step", "class_weight", class_weight, classes)
        if (
            _checks.visible(class_weight)
            and not 0 <= float(class_weight.min()) <= float(class_weight.max()) < inf
        ):
            raise ValueError(
                f"head_step: class_weight must be finite and not negative, got values from "
                f"{float(class_weight.min())} to {float(class_weight.max())}"
            )


def _check_batch(features: Tensor, labels: Tensor, rows: Tensor | None, classes: int) -> None:
    _checks.label_type("head_step", "labels", labels, len(features))
    if rows is None:
        _checks.label_values("head_step", "labels", labels, classes)
        return
    _checks.tensor("head_step", torch.int64, rows=rows)
    _checks.shape("head_step", "rows", rows, None)
    _checks.label_values("head_step", "rows", rows, len(features))
    if _checks.visible(labels) and rows.device == labels.device:
        _checks.label_values("head_step", "labels", labels[rows], classes)
