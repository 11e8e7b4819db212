"""The torch operators sal_fast::minmax_normalize and sal_fast::minmax_normalize_backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sal_fast.ops import _launch

_launch.define("minmax_normalize(Tensor maps) -> Tensor")
_launch.define("minmax_normalize_backward(Tensor upstream, Tensor maps) -> Tensor")


def minmax_normalize(maps: Tensor) -> Tensor:
    result: Tensor = torch.ops.sal_fast.minmax_normalize.default(maps)
    return result


def _fields(maps: Tensor) -> tuple[int, ...]:
    size = maps.shape[-2] * maps.shape[-1]
    count = maps.numel() // max(1, size)
    return maps.data_ptr(), _launch.DTYPES[maps.dtype], count, size


def _forward(maps: Tensor) -> Tensor:
    maps = maps.contiguous()
    result = torch.empty_like(maps, dtype=torch.float32)
    _launch.launch("minmax_normalize", maps.device, *_fields(maps), result.data_ptr())
    return result


def _backward(upstream: Tensor, maps: Tensor) -> Tensor:
    maps, upstream = maps.contiguous(), upstream.contiguous()
    grad = torch.empty_like(maps)
    _launch.launch(
        "minmax_normalize_backward", maps.device, *_fields(maps), upstream.data_ptr(), grad.data_ptr()
    )
    return grad


for _device in ("CPU", "CUDA"):
    torch.library.impl(_launch.library, "minmax_normalize", _device)(_forward)
    torch.library.impl(_launch.library, "minmax_normalize_backward", _device)(_backward)


@torch.library.register_fake("sal_fast::minmax_normalize", lib=_launch.library)
def _forward_fake(maps: Tensor) -> Tensor:
    return maps.new_empty(maps.shape, dtype=torch.float32)


@torch.library.register_fake("sal_fast::minmax_normalize_backward", lib=_launch.library)
def _backward_fake(upstream: Tensor, maps: Tensor) -> Tensor:
    return maps.new_empty(maps.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _differentiate(ctx: Any, upstream: Tensor) -> Tensor:
    (maps,) = ctx.saved_tensors
    grad: Tensor = torch.ops.sal_fast.minmax_normalize_backward.default(upstream, maps)
    return grad


torch.library.register_autograd(
    "sal_fast::minmax_normalize", _differentiate, setup_context=_setup_context, lib=_launch.library
)
_launch.no_second_derivative("minmax_normalize")
