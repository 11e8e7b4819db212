"""The torch operators sal_fast::minmax_normalize and sal_fast::minmax_normalize_backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sal_fast.ops import _launch


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


def _forward_fake(maps: Tensor) -> Tensor:
    return maps.new_empty(maps.shape, dtype=torch.float32)


def _backward_fake(upstream: Tensor, maps: Tensor) -> Tensor:
    return maps.new_empty(maps.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _differentiate(ctx: Any, upstream: Tensor) -> Tensor:
    (maps,) = ctx.saved_tensors
    grad: Tensor = _minmax_normalize_backward(upstream, maps)
    return grad


_minmax_normalize_backward = _launch.operator(
    "minmax_normalize_backward(Tensor upstream, Tensor maps) -> Tensor", _backward, _backward_fake
)
_minmax_normalize = _launch.operator(
    "minmax_normalize(Tensor maps) -> Tensor", _forward, _forward_fake, _setup_context, _differentiate
)


def minmax_normalize(maps: Tensor) -> Tensor:
    result: Tensor = _minmax_normalize(maps)
    return result
