"""The torch operator sal_fast::saliency_loss: the loss, and its gradient made on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sal_fast.ops import _launch
from sal_fast.ops._reductions import reduce
from sal_fast.ops.saliency_loss.reference import SIGMA
from sal_fast.ops.ssim.registration import BORDER_CODES

# The codes of launch/saliency_loss.h.
_KIND_CODES = {"ssim_l1": 0, "mse": 1}
_TARGET_CODES = _launch.DTYPES | {
    torch.uint8: 3,
    torch.bool: 3,
    torch.int32: 4,
}  # int32: the words of a BitMask

# kMostSide of launch.h, kSaliencyMostWindow of launch/saliency_loss.h.
_MOST_SIDE = 1 << 14
_MOST_WINDOW_ON_CUDA = 33


def takes(cam: Tensor, target_size: Sequence[int], size: Sequence[int], window: int) -> bool:
    """Whether the kernels do; the reference takes any size."""
    return (
        _launch.native(cam)
        and max(*cam.shape[1:], *target_size, *size) <= _MOST_SIDE
        and (cam.device.type == "cpu" or window <= _MOST_WINDOW_ON_CUDA)
    )


def _forward(
    cam: Tensor,
    target: Tensor,
    has_map: Tensor | None,
    sizes: Sequence[int],
    how: Sequence[str],
    with_grad: bool,
) -> tuple[Tensor, Tensor]:
    kind, border, reduction = how
    weight = 1 / max(1, cam.shape[0]) if reduction == "mean" else 1.0
    cam = cam.contiguous()
    if target.dtype not in _TARGET_CODES:
        target = target.float()
    if target.dtype == torch.int32 and target.stride(2) != 1:
        target = target.contiguous()
    if has_map is not None:
        has_map = has_map.contiguous()
    values = cam.new_empty(cam.shape[0], dtype=torch.float32)
    grad = _empty_grad(cam, with_grad)
    target_width, height, width, window = sizes
    fields = (
        cam.data_ptr(), _launch.DTYPES[cam.dtype], *cam.shape, target.data_ptr(), _TARGET_CODES[target.dtype],
        target.shape[1], target_width, *target.stride(), 0 if has_map is None else has_map.data_ptr(), height,
        width, window, SIGMA, BORDER_CODES[border], _KIND_CODES[kind], weight,
        values.data_ptr(), grad.data_ptr() if with_grad else 0,
    )  # fmt: skip
    if cam.shape[0]:
        workspace = _launch.workspace("saliency_loss", cam.device, *fields)
        _launch.launch("saliency_loss", cam.device, *fields, workspace)
    return reduce(values, reduction), grad


def _empty_grad(cam: Tensor, with_grad: bool) -> Tensor:
    """Of the result; float32 whatever the CAM is, since a half type may not hold it."""
    return cam.new_empty(cam.shape if with_grad else (0,), dtype=torch.float32)


def _forward_fake(
    cam: Tensor,
    target: Tensor,
    has_map: Tensor | None,
    sizes: Sequence[int],
    how: Sequence[str],
    with_grad: bool,
) -> tuple[Tensor, Tensor]:
    shape = cam.shape[:1] if how[2] == "none" else ()
    return cam.new_empty(shape, dtype=torch.float32), _empty_grad(cam, with_grad)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.reduction = inputs[4][2]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(inputs[0], output[1])


def _differentiate(ctx: Any, upstream: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    cam, gradient = ctx.saved_tensors
    if ctx.reduction == "none":
        upstream = upstream[:, None, None]
    grad = _launch.first_derivative("saliency_loss", (gradient * upstream).to(cam.dtype), cam)
    return grad, None, None, None, None, None


_operator = _launch.operator(
    # sizes: the target's width, the loss's height and width, the window; how: kind, border, reduction. Lists,
    # because torch takes its time over each argument of an operator with a gradient.
    "saliency_loss(Tensor cam, Tensor target, Tensor? has_map, SymInt[] sizes, str[] how, bool with_grad) "
    "-> (Tensor loss, Tensor grad)",
    _forward,
    _forward_fake,
    _setup_context,
    _differentiate,
    leaving=1,
)


def saliency_loss(
    cam: Tensor,
    target: Tensor,
    has_map: Tensor | None,
    sizes: Sequence[int],
    kind: str,
    border: str,
    reduction: str,
) -> Tensor:
    """Of what `takes`. `target`: [B, H, W], or the words of a BitMask."""
    with_grad = torch.is_grad_enabled() and cam.requires_grad
    loss: Tensor = _operator(cam, target, has_map, sizes, (kind, border, reduction), with_grad)[0]
    return loss
