"""The torch operators sal_fast::cam and sal_fast::cam_head, and their backward.

The kernels read the features where they are: each image is a matrix with contiguous rows. The matrix products
are torch's, in their `out=` variants, which autocast leaves in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sal_fast.ops import _checks, _launch
from sal_fast.ops.cam import reference

# Of launch/cam.h.
_PROBE_CODES = {"cam": 0, "gradcam": 1, "gradcam++": 2, "hirescam": 3}
_NCHW, _NHWC = 0, 1

HeadResults = tuple[Tensor, Tensor, Tensor, Tensor]


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
        "weight": weight.contiguous(), "weight_dtype": _launch.DTYPES[weight.dtype], "classes": len(weight),
        "target": None if target is None else target.contiguous(), "probe": _PROBE_CODES[probe],
    }  # fmt: skip


def _launch_cam(features: Tensor, head: dict[str, Any], **wanted: Tensor | None) -> None:
    """Fill `pooled` and `cam`, those that are given."""
    results = {"known_pooled": None, "pooled": None, "cam": None} | wanted
    _launch.launch("cam", features.device, **_as_matrices(features), **head, **results)


def _empty_results(features: Tensor) -> tuple[Tensor, Tensor]:
    """Memory for the maps and the pooled features."""
    batch, channels, height, width = features.shape
    return (
        features.new_empty((batch, height, width), dtype=torch.float32),
        features.new_empty((batch, channels), dtype=torch.float32),
    )


def _takes(features: Tensor, weight: Tensor, *_: Any) -> bool:
    return _launch.native(features) and _launch.native(weight)


def _cam_kernel(features: Tensor, weight: Tensor, target: Tensor, probe: str) -> tuple[Tensor, Tensor]:
    _checks.label_values("cam", "target", target, len(weight))
    maps, pooled = _empty_results(features)
    _launch_cam(features, _head(weight, target, probe), pooled=pooled, cam=maps)
    return maps, pooled


def _cam_reference(features: Tensor, weight: Tensor, target: Tensor, probe: str) -> tuple[Tensor]:
    _checks.label_values("cam", "target", target, len(weight))
    return (reference.cam(features, weight, target, probe),)


def _head_kernel(
    features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor | None, probe: str
) -> HeadResults:
    if target is not None:
        _checks.label_values("cam_head", "target", target, len(weight))
    maps, pooled = _empty_results(features)
    head = _head(weight, target, probe)
    _launch_cam(features, head, pooled=pooled, cam=None if target is None else maps)
    logits = pooled.new_empty(len(pooled), len(weight))
    if bias is None:
        torch.mm(pooled, weight.float().t(), out=logits)
    else:
        torch.addmm(bias.float(), pooled, weight.float().t(), out=logits)
    if target is not None:
        return logits, maps, pooled, target.new_empty(0)
    classes = logits.argmax(1)  # the lowest of equals
    _launch_cam(features, head | {"target": classes}, known_pooled=pooled, cam=maps)
    return logits, maps, pooled, classes


def _head_reference(
    features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor | None, probe: str
) -> HeadResults:
    if target is not None:
        _checks.label_values("cam_head", "target", target, len(weight))
    return reference.cam_head(features, weight, bias, target, probe)


def _backward_kernel(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    grad_logits, grad_cam, grad_pooled, features, weight, target, pooled, maps, probe, wanted = arguments
    wants_features, wants_weight, wants_bias = wanted
    grad_features = _empty_like(features) if wants_features else features.new_empty(0)
    grad_weight = pooled.new_empty(weight.shape if wants_weight else 0)
    if wants_features and grad_logits is not None:
        through = torch.empty_like(pooled)
        if grad_pooled is None:
            torch.mm(grad_logits, weight.float(), out=through)
        else:
            torch.addmm(grad_pooled, grad_logits, weight.float(), out=through)
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
        grad_bias = grad_logits.sum(0)
    else:
        grad_bias = pooled.new_zeros(len(weight) if wants_bias else 0)
    return grad_features, grad_weight.to(weight.dtype), grad_bias


def _cam_fake(features: Tensor, weight: Tensor, target: Tensor, probe: str) -> tuple[Tensor, Tensor]:
    return _empty_results(features)


def _head_fake(
    features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor | None, probe: str
) -> HeadResults:
    maps, pooled = _empty_results(features)
    batch = features.shape[0]
    classes = features.new_empty(batch if target is None else 0, dtype=torch.int64)
    return pooled.new_empty(batch, weight.shape[0]), maps, pooled, classes


def _backward_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    _, _, _, features, weight, _, pooled, _, _, wanted = arguments
    return (
        _empty_like(features) if wanted[0] else features.new_empty(0),
        weight.new_empty(weight.shape if wanted[1] else 0),
        pooled.new_empty(weight.shape[0] if wanted[2] else 0),
    )


# Autograd --------------------------------------------------------------------------------------------------


def _differentiate(
    ctx: Any, grad_logits: Tensor | None, grad_cam: Tensor | None, grad_pooled: Tensor | None, bias: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients to features, weight and bias; None for those that are not wanted."""
    features, weight, target, pooled, maps = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], bias]
    grads = _backward(
        grad_logits, grad_cam, grad_pooled, features, weight, target, pooled, maps, ctx.probe, wanted
    )
    a, b, c = (grad if needed else None for grad, needed in zip(grads, wanted, strict=True))
    return a, b, c


def _cam_save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, str], output: tuple[Tensor, Tensor]) -> None:
    features, weight, target, ctx.probe = inputs
    maps, pooled = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(features, weight, target, pooled, maps)


def _cam_differentiate(
    ctx: Any, grad_cam: Tensor | None, grad_pooled: Tensor | None
) -> tuple[Tensor | None, Tensor | None, None, None]:
    grad_features, grad_weight, _ = _differentiate(ctx, None, grad_cam, grad_pooled, bias=False)
    return grad_features, grad_weight, None, None


def _head_save(
    ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, Tensor | None, str], output: tuple[Tensor, ...]
) -> None:
    features, weight, bias, target, ctx.probe = inputs
    _, maps, pooled, predicted = output
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(predicted)
    ctx.save_for_backward(features, weight, predicted if target is None else target, pooled, maps)


def _head_differentiate(
    ctx: Any,
    grad_logits: Tensor | None,
    grad_cam: Tensor | None,
    grad_pooled: Tensor | None,
    _: Tensor | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
    grad_features, grad_weight, grad_bias = _differentiate(
        ctx, grad_logits, grad_cam, grad_pooled, bias=ctx.needs_input_grad[2]
    )
    grad_bias = None if grad_bias is None else grad_bias.to(ctx.bias_dtype)
    return grad_features, grad_weight, grad_bias, None, None


_backward = _launch.operator(
    "cam_head_backward(Tensor? grad_logits, Tensor? grad_cam, Tensor? grad_pooled, Tensor features,"
    " Tensor weight, Tensor target, Tensor pooled, Tensor cam, str probe, bool[3] wanted)"
    " -> (Tensor features, Tensor weight, Tensor bias)",
    _backward_kernel,
    _backward_fake,
)
cam = _launch.operator(
    "cam(Tensor features, Tensor weight, Tensor target, str probe) -> (Tensor cam, Tensor pooled)",
    _cam_kernel,
    _cam_fake,
    _launch.Fallback(_takes, _cam_reference),
    _launch.Derivative(_cam_save, _cam_differentiate),
)
cam_head = _launch.operator(
    "cam_head(Tensor features, Tensor weight, Tensor? bias, Tensor? target, str probe)"
    " -> (Tensor logits, Tensor cam, Tensor pooled, Tensor classes)",
    _head_kernel,
    _head_fake,
    _launch.Fallback(_takes, _head_reference),
    _launch.Derivative(_head_save, _head_differentiate),
)
