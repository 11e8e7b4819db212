"""The torch operator sal_fast::ssim: the per-image means, and their gradients made on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sal_fast.ops import _launch

# Of launch/ssim.h.
BORDER_CODES = {"valid": 0, "zero": 1, "reflect": 2}
_MOST_WINDOW_ON_CUDA = 511


def takes(x: Tensor, window: int) -> bool:
    """Whether the kernels do; the reference takes any window."""
    return _launch.native(x) and (x.device.type == "cpu" or window <= _MOST_WINDOW_ON_CUDA)


def _outputs(x: Tensor, with_grad_x: bool, with_grad_y: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Float32 whatever the images are: the mean's gradient may be too small for float16."""

    def gradient(wanted: bool) -> Tensor:
        return x.new_empty(x.shape if wanted else (0,), dtype=torch.float32)

    return x.new_empty(x.shape[0], dtype=torch.float32), gradient(with_grad_x), gradient(with_grad_y)


def _forward(
    x: Tensor,
    y: Tensor,
    window: int,
    sigma: float,
    border: str,
    data_range: float,
    with_grad_x: bool,
    with_grad_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    values, grad_x, grad_y = _outputs(x, with_grad_x, with_grad_y)
    fields = [
        x.data_ptr(), y.data_ptr(), _launch.DTYPES[x.dtype], *x.shape, *x.stride(), *y.stride(), window,
        sigma, BORDER_CODES[border], data_range, values.data_ptr(), grad_x.data_ptr() if with_grad_x else 0,
        grad_y.data_ptr() if with_grad_y else 0,
    ]  # fmt: skip
    if x.shape[0]:
        _launch.launch("ssim", x.device, *fields, _launch.workspace("ssim", x.device, *fields))
    return values, grad_x, grad_y


def _forward_fake(
    x: Tensor,
    y: Tensor,
    window: int,
    sigma: float,
    border: str,
    data_range: float,
    with_grad_x: bool,
    with_grad_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(x, with_grad_x, with_grad_y)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
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


_operator = _launch.operator(
    "ssim(Tensor x, Tensor y, int window, float sigma, str border, float data_range, bool with_grad_x, "
    "bool with_grad_y) -> (Tensor values, Tensor grad_x, Tensor grad_y)",
    _forward,
    _forward_fake,
    _setup_context,
    _differentiate,
    leaving=1,
)


def ssim(x: Tensor, y: Tensor, window: int, sigma: float, border: str, data_range: float) -> Tensor:
    """[B], of what `takes`."""
    recording = torch.is_grad_enabled()
    values: Tensor = _operator(
        x, y, window, sigma, border, data_range, recording and x.requires_grad, recording and y.requires_grad
    )[0]
    return values
