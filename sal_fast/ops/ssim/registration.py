"""The torch operator sal_fast::ssim: the mean of each image, and its gradients, which are made on the way."""

from typing import Any

import torch
from torch import Tensor

from sal_fast.ops import _launch
from sal_fast.ops.ssim import reference

# Of launch/ssim.h.
BORDER_CODES = {"valid": 0, "zero": 1, "reflect": 2}
_MOST_WINDOW_ON_CUDA = 511

Results = tuple[Tensor, Tensor, Tensor]


def _takes(x: Tensor, y: Tensor, window: int, *_: Any) -> bool:
    return _launch.native(x) and (x.device.type == "cpu" or window <= _MOST_WINDOW_ON_CUDA)


def _strides(x: Tensor) -> dict[str, int]:
    image, channel, row, column = x.stride()
    return {"image": image, "channel": channel, "row": row, "column": column}


def _fill(results: Results, x: Tensor, y: Tensor, *options: Any) -> None:
    values, grad_x, grad_y = results
    window, sigma, border, data_range, *with_grads = options
    images, channels, height, width = x.shape
    if images:
        _launch.launch(
            "ssim", x.device, x=x, y=y, dtype=_launch.DTYPES[x.dtype], images=images, channels=channels,
            height=height, width=width, x_strides=_strides(x), y_strides=_strides(y), window=window,
            sigma=sigma, border=BORDER_CODES[border], data_range=data_range, values=values,
            grad_x=grad_x if with_grads[0] else None, grad_y=grad_y if with_grads[1] else None,
        )  # fmt: skip


def _empty(x: Tensor, y: Tensor, *options: Any) -> Results:
    """Float32 whatever the images are: the mean's gradient may be too small for float16."""
    values = x.new_empty(x.shape[0], dtype=torch.float32)
    grad_x, grad_y = (values.new_empty(x.shape if wanted else (0,)) for wanted in options[-2:])
    return values, grad_x, grad_y


def _reference(x: Tensor, y: Tensor, *options: Any) -> tuple[Tensor]:
    if x.dtype != torch.float64:
        x, y = x.float(), y.float()
    return (reference.ssim(x, y, *options[:-2]).mean((1, 2, 3)),)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Results) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:2], *output[1:])


def _differentiate(ctx: Any, upstream: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    x, y, *gradients = ctx.saved_tensors
    grads: list[Tensor | None] = [None, None]
    for i, gradient in enumerate(gradients):
        if gradient.ndim > 1:
            grad = (gradient * upstream[:, None, None, None]).to(x.dtype)
            grads[i] = _launch.first_derivative("ssim", grad, x, y)
    return *grads, None, None, None, None, None, None


_ssim = _launch.operator(
    "ssim(Tensor x, Tensor y, int window, float sigma, str border, float data_range, bool with_grad_x, "
    "bool with_grad_y) -> (Tensor values, Tensor grad_x, Tensor grad_y)",
    _empty,
    _fill,
    _launch.Fallback(_takes, _reference),
    _launch.Derivative(_save, _differentiate, leaving=1),
)


def ssim(x: Tensor, y: Tensor, *options: Any) -> Tensor:
    """The mean of each image, [B]. `options`: window, sigma, border, data_range."""
    recording = torch.is_grad_enabled()
    with_grads = recording and x.requires_grad, recording and y.requires_grad
    values: Tensor = _ssim(x, y, *options, *with_grads)[0]
    return values
