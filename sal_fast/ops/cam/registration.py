"""The torch operator sal_fast::cam_head, which both ops of this module are, and its backward.

The kernels read the features where they are: each image is a matrix with contiguous rows. The matrix products
are torch's, in their `out=` variants, which autocast leaves in float32.
"""

from typing import Any

import torch
from torch import Tensor

from sal_fast.ops import _checks, _launch
from sal_fast.ops.cam import reference

# Of launch/cam.h.
PROBE_CODES = {"cam": 0, "gradcam": 1, "gradcam++": 2, "hirescam": 3}
_NCHW, _NHWC = 0, 1

Results = tuple[Tensor, Tensor, Tensor, Tensor]


# Layout ----------------------------------------------------------------------------------------------------


def _rows(features: Tensor) -> tuple[int, int] | None:
    """Layout and row stride of features [B, C, h, w]. None if an image is no matrix with contiguous rows."""
    _, channels, height, width = features.shape
    _, by_channel, by_line, by_column = features.stride()
    pixels = height * width
    if pixels == 1:
        by_pixel = 1
    elif height == 1 or by_line == width * by_column:
        by_pixel = by_column
    elif width == 1:
        by_pixel = by_line
    else:
        return None
    if channels > 1 and by_channel == 1 and (pixels == 1 or by_pixel >= channels):
        return _NHWC, channels if pixels == 1 else by_pixel
    if by_pixel == 1 and (channels == 1 or by_channel >= pixels):
        return _NCHW, pixels if channels == 1 else by_channel
    return None


def _empty_like(features: Tensor) -> Tensor:
    """A dense tensor of the features' shape, in the layout that `_as_matrices` finds."""
    batch, channels, height, width = features.shape
    rows = _rows(features)
    if rows is not None and rows[0] == _NHWC:
        return features.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)
    return features.new_empty(features.shape)


def _as_matrices(features: Tensor) -> dict[str, Any]:
    """The fields of the features, which are copied only if they must be."""
    rows = _rows(features)
    if rows is None:
        features = features.contiguous()
        rows = _NCHW, features.shape[2] * features.shape[3]
    batch, channels, height, width = features.shape
    return {
        "features": features, "dtype": _launch.DTYPES[features.dtype], "images": batch, "channels": channels,
        "pixels": height * width, "layout": rows[0], "image_stride": features.stride(0),
        "row_stride": rows[1],
    }  # fmt: skip


# Kernels ---------------------------------------------------------------------------------------------------


def _head(weight: Tensor, target: Tensor | None, probe: str) -> dict[str, Any]:
    """The fields of the linear layer, and of the map that is asked of it."""
    return {
        "weight": weight.contiguous(), "weight_dtype": _launch.DTYPES[weight.dtype],
        "classes": weight.shape[0],
        "target": None if target is None else target.contiguous(), "probe": PROBE_CODES[probe],
    }  # fmt: skip


def _launch_cam(features: Tensor, head: dict[str, Any], **wanted: Tensor | None) -> None:
    """Fill `pooled` and `cam`, those that are given."""
    results = {"known_pooled": None, "pooled": None, "cam": None} | wanted
    _launch.launch("cam", features.device, **_as_matrices(features), **head, **results)


def _takes(features: Tensor, weight: Tensor, *_: Any) -> bool:
    return _launch.native(features) and _launch.native(weight)


def _fill(results: Results, features: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> None:
    logits, maps, pooled, classes = results
    target, probe, with_logits = options
    _checks.label_values("cam_head" if with_logits else "cam", "target", target, weight.shape[0])
    head = _head(weight, target, probe)
    _launch_cam(features, head, pooled=pooled, cam=None if target is None else maps)
    if with_logits:
        _linear(bias, pooled, weight.float().t(), logits)
    if target is None:
        torch.argmax(logits, 1, out=classes)  # the lowest of equals
        _launch_cam(features, head | {"target": classes}, known_pooled=pooled, cam=maps)


def _linear(added: Tensor | None, x: Tensor, weight: Tensor, out: Tensor) -> None:
    """Compute out = x weight + added."""
    if added is None:
        torch.mm(x, weight, out=out)
    else:
        torch.addmm(added.float(), x, weight, out=out)


def _reference(features: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> tuple[Tensor, ...]:
    target, probe, with_logits = options
    _checks.label_values("cam_head" if with_logits else "cam", "target", target, weight.shape[0])
    if with_logits:
        return reference.cam_head(features, weight, bias, target, probe)
    return weight.new_empty(0), reference.cam(features, weight, target, probe)


def _backward_fill(results: tuple[Tensor, Tensor, Tensor], *arguments: Any) -> None:
    grad_features, grad_weight, grad_bias = results
    grad_logits, grad_cam, grad_pooled, features, weight, target, pooled, maps, probe, wanted = arguments
    wants_features, wants_weight, wants_bias = wanted
    if wants_features and grad_logits is not None:
        through = torch.empty_like(pooled)
        _linear(grad_pooled, grad_logits, weight.float(), through)
        grad_pooled = through
    if wants_weight:
        if grad_logits is None:
            grad_weight.zero_()
        else:
            torch.mm(grad_logits.t(), pooled, out=grad_weight)
    if wants_features or (wants_weight and grad_cam is not None):
        _launch.launch(
            "cam_backward", features.device, **_as_matrices(features), **_head(weight, target, probe),
            pooled=pooled, cam=maps, grad_cam=None if grad_cam is None else grad_cam.contiguous(),
            grad_pooled=None if grad_pooled is None else grad_pooled.contiguous(),
            grad_features=grad_features if wants_features else None,
            grad_weight=grad_weight if wants_weight else None,
        )  # fmt: skip
    if wants_bias and grad_logits is not None:
        torch.sum(grad_logits, 0, out=grad_bias)
    else:
        grad_bias.zero_()


def _empty(features: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Results:
    target, _, with_logits = options
    batch, channels, height, width = features.shape
    pooled = features.new_empty((batch, channels), dtype=torch.float32)
    return (
        pooled.new_empty(batch if with_logits else 0, weight.shape[0]),
        pooled.new_empty(batch, height, width),
        pooled,
        features.new_empty(batch if target is None else 0, dtype=torch.int64),
    )


def _backward_empty(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    _, _, _, features, weight, _, pooled, _, _, wanted = arguments
    return (
        _empty_like(features) if wanted[0] else features.new_empty(0),
        pooled.new_empty(weight.shape if wanted[1] else 0),
        pooled.new_empty(weight.shape[0] if wanted[2] else 0),
    )


# Autograd --------------------------------------------------------------------------------------------------


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    features, weight, bias, target, ctx.probe, with_logits = inputs
    logits, maps, pooled, predicted = output
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(predicted, *([] if with_logits else [logits]))
    ctx.save_for_backward(features, weight, predicted if target is None else target, pooled, maps)


def _differentiate(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
    features, weight, *_ = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:3])
    grads = zip(
        _backward(*upstream[:3], *ctx.saved_tensors, ctx.probe, wanted),
        wanted,
        (features.dtype, weight.dtype, ctx.bias_dtype),
        strict=True,
    )
    return *(grad.to(dtype) if needed else None for grad, needed, dtype in grads), None, None, None


_backward = _launch.operator(
    "cam_head_backward(Tensor? grad_logits, Tensor? grad_cam, Tensor? grad_pooled, Tensor features,"
    " Tensor weight, Tensor target, Tensor pooled, Tensor cam, str probe, bool[3] wanted)"
    " -> (Tensor features, Tensor weight, Tensor bias)",
    _backward_empty,
    _backward_fill,
)
cam_head = _launch.operator(
    # Without logits, which need a target, it is the op `cam`.
    "cam_head(Tensor features, Tensor weight, Tensor? bias, Tensor? target, str probe, bool with_logits)"
    " -> (Tensor logits, Tensor cam, Tensor pooled, Tensor classes)",
    _empty,
    _fill,
    _launch.Fallback(_takes, _reference),
    _launch.Derivative(_save, _differentiate),
)
