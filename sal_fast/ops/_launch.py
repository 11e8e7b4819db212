"""From tensors to the launchers of the native core: which tensors it takes, on which threads or stream."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sal_fast import _native

# The codes of csrc/include/sal_fast/launch.h.
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}

# Looked up once: torch.compile guards a constant, and would not follow the loader.
_CORES = {"cpu": _native.core(), "cuda": _native.cuda_core()}

library = torch.library.Library("sal_fast", "FRAGMENT")


def native(tensor: Tensor) -> bool:
    """Whether a kernel is compiled for tensors of this device and dtype; otherwise the reference runs."""
    return _CORES.get(tensor.device.type) is not None and tensor.dtype in DTYPES


def launch(name: str, device: torch.device, *arguments: float) -> None:
    """Call launcher `name` with the fields of its struct in csrc/include/sal_fast/launch.

    On a GPU on the current stream; on the CPU on `torch.get_num_threads()` threads.
    """
    core = _CORES[device.type]
    if device.type == "cpu":
        getattr(core, name + "_cpu")(*arguments, torch.get_num_threads())
        return
    with torch.cuda.device(device):
        getattr(core, name + "_cuda")(*arguments, torch.cuda.current_stream().cuda_stream)


def define(schema: str) -> None:
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))


def workspace(name: str, device: torch.device, *arguments: float) -> int:
    """The address of what launcher `name` needs beyond its outputs; 0 for nothing, as on the CPU.

    It is freed at once: what the allocator hands out next on this stream runs after the kernels that use it.
    """
    if device.type == "cpu":
        return 0
    floats = getattr(_CORES[device.type], name + "_workspace")(*arguments, 0)
    return torch.empty(floats, dtype=torch.float32, device=device).data_ptr()


class _FirstOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: str, gradient: Tensor, *inputs: Tensor) -> Tensor:
        ctx.op = op
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, ...]:
        raise NotImplementedError(f"{ctx.op}: only first derivatives are implemented")


def first_derivative(op: str, gradient: Tensor, *inputs: Tensor) -> Tensor:
    """For operators that make the gradient in the forward: its own derivative is an error, not a number."""
    if not torch.is_grad_enabled():  # not asked for
        return gradient
    result: Tensor = _FirstOnly.apply(op, gradient, *inputs)
    return result


def no_second_derivative(op: str) -> None:
    """Make a backward of the backward an error, not a wrong number."""

    def refuse(ctx: object, *upstream: Tensor) -> tuple[None, ...]:
        raise NotImplementedError(f"{op}: only first derivatives are implemented")

    torch.library.register_autograd(f"sal_fast::{op}_backward", refuse, lib=library)
