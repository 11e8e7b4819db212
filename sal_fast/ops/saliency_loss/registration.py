"""The torch operator sal_fast::saliency_loss: the loss, and its gradient, which is made on the way."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sal_fast.ops import _launch, _masks
from sal_fast.ops._reductions import reduce
from sal_fast.ops.saliency_loss import reference
from sal_fast.ops.ssim.registration import BORDER_CODES

# The codes of launch/saliency_loss.h. int32 stands for the words of a BitMask.
_KIND_CODES = {"ssim_l1": 0, "mse": 1}
TARGET_CODES = _launch.DTYPES | {torch.uint8: 3, torch.bool: 3, torch.int32: 4}

# kSaliencyMostWindow of launch/saliency_loss.h.
_MOST_WINDOW_ON_CUDA = 33


def takes(cam: Tensor, target: Tensor, has_map: Tensor | None, sizes: Sequence[int], *_: Any) -> bool:
    width, *size, window = sizes
    """True if the kernels take these arguments of the operator."""
    if not _launch.native(cam) or max(*cam.shape[1:], target.shape[1], width, *size) > _launch.MOST_SIDE:
        return False
    if cam.device.type == "cpu":
        return True
    # The shared memory of the CUDA kernels is sized for a CAM that is enlarged.
    return window <= _MOST_WINDOW_ON_CUDA and cam.shape[1] <= size[0] and cam.shape[2] <= size[1]


def target_fields(
    target: Tensor, has_map: Tensor | None, sizes: Sequence[int], border: str, kind: str
) -> dict[str, Any]:
    """The fields of the maps, and of how CAMs are compared with them. `sizes`: as of the operator."""
    target_width, height, width, window = sizes
    if target.dtype not in TARGET_CODES:
        target = target.float()
    if target.dtype == torch.int32 and target.stride(2) != 1:
        target = target.contiguous()
    image_stride, row_stride, column_stride = target.stride()
    return {
        "target": target, "target_type": TARGET_CODES[target.dtype], "target_height": target.shape[1],
        "target_width": target_width, "target_image_stride": image_stride, "target_row_stride": row_stride,
        "target_column_stride": column_stride, "has_map": None if has_map is None else has_map.contiguous(),
        "height": height, "width": width, "window": window, "sigma": reference.SIGMA,
        "border": BORDER_CODES[border], "kind": _KIND_CODES[kind],
    }  # fmt: skip


def _fill(results: tuple[Tensor, Tensor], cam: Tensor, target: Tensor, *options: Any) -> None:
    loss, grad = results
    has_map, sizes, (kind, border, reduction), with_grad = options
    images, cam_height, cam_width = cam.shape
    if not images:
        if reduction != "none":
            loss.zero_()
        return
    # On the CPU the core makes the sum, which takes torch as long as a small kernel.
    inside = reduction != "none" and cam.is_cpu
    values = None if inside else loss if reduction == "none" else loss.new_empty(images)
    fields = target_fields(target, has_map, sizes, border, kind)
    _launch.launch(
        "saliency_loss", cam.device, cam=cam.contiguous(), dtype=_launch.DTYPES[cam.dtype], images=images,
        cam_height=cam_height, cam_width=cam_width, weight=1 / images if reduction == "mean" else 1.0,
        values=values, total=loss if inside else None, grad=grad if with_grad else None, **fields,
    )  # fmt: skip
    if values is not None and values is not loss:
        (torch.mean if reduction == "mean" else torch.sum)(values, 0, out=loss)


def _empty(cam: Tensor, target: Tensor, has_map: Tensor | None, *options: Any) -> tuple[Tensor, Tensor]:
    """Float32 whatever the CAM is, since a half type may not hold the gradient of the result."""
    _, (_, _, reduction), with_grad = options
    loss = cam.new_empty(cam.shape[:1] if reduction == "none" else (), dtype=torch.float32)
    return loss, loss.new_empty(cam.shape if with_grad else (0,))


def _reference(cam: Tensor, target: Tensor, has_map: Tensor | None, *options: Any) -> tuple[Tensor]:
    (columns, height, width, window), (kind, border, reduction), _ = options
    cam = cam if cam.dtype == torch.float64 else cam.float()
    if target.dtype == torch.int32:
        target = _masks.unpacked(target, columns)
    losses = reference.saliency_loss(cam, target, has_map, (height, width), window, border, kind)
    return (reduce(losses, reduction),)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(inputs[0], output[1])


def _differentiate(ctx: Any, upstream: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    cam, gradient = ctx.saved_tensors
    return gradient_of(cam, gradient, upstream), None, None, None, None, None


def gradient_of(cam: Tensor, gradient: Tensor, upstream: Tensor) -> Tensor:
    """The gradient to the CAM, from the one that the forward made and the one of the result."""
    if upstream.ndim:
        upstream = upstream[:, None, None]
    grad = gradient * upstream
    if cam.dtype != torch.float32:
        grad = grad.to(cam.dtype)
    if torch.is_grad_enabled():
        grad = _launch.first_derivative("saliency_loss", grad, cam)
    return grad


_saliency_loss = _launch.operator(
    # sizes: the target's width, the loss's height and width, the window. how: kind, border, reduction. These
    # are lists because torch takes its time over each argument of an operator with a gradient.
    "saliency_loss(Tensor cam, Tensor target, Tensor? has_map, SymInt[] sizes, str[] how, bool with_grad) "
    "-> (Tensor loss, Tensor grad)",
    _empty,
    _fill,
    _launch.Fallback(takes, _reference),
    _launch.Derivative(_save, _differentiate, leaving=1),
)


def saliency_loss(
    cam: Tensor, target: Tensor, has_map: Tensor | None, sizes: Sequence[int], how: Sequence[str]
) -> Tensor:
    """The reduced loss. `target`: [B, H, W] or the words of a BitMask; `sizes`, `how`: see the operator."""
    with_grad = torch.is_grad_enabled() and cam.requires_grad
    loss: Tensor = _saliency_loss(cam, target, has_map, sizes, how, with_grad)[0]
    return loss
