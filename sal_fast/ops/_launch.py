"""From tensors to the launchers of the native core: which tensors it takes, on which threads or stream."""

from __future__ import annotations

import functools
from collections.abc import Callable
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
    return has_core(tensor.device) and tensor.dtype in DTYPES


def has_core(device: torch.device) -> bool:
    """Whether kernels are compiled for tensors of this device."""
    return _CORES.get(device.type) is not None


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


def operator(
    schema: str,
    forward: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    differentiate: Callable[..., Any] | None = None,
    devices: tuple[str, ...] = ("CPU", "CUDA"),
    leaving: int | None = None,
) -> Callable[..., Any]:
    """Define sal_fast::<name> with its derivative, and give the function to call it with.

    Without `differentiate`, as for the gradient of another operator, a derivative is an error. `leaving`: how
    many outputs the caller looks at; the others are there for the derivative.

    torch's dispatcher takes 40 us for an operator that is written in Python, more than a small kernel. So
    plain tensors take the same functions as a `torch.autograd.Function`, without it; whatever needs to see
    an operator (torch.compile, tensor subclasses, dispatch modes, functorch, other devices) does.
    """
    name = schema.split("(")[0]
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    for device in devices:
        torch.library.impl(library, name, device)(forward)
    torch.library.register_fake(f"sal_fast::{name}", fake, lib=library)
    torch.library.register_autograd(
        f"sal_fast::{name}",
        differentiate or functools.partial(_refuse, name),
        setup_context=setup_context,
        lib=library,
    )
    overload = getattr(torch.ops.sal_fast, name).default
    recorded = overload
    if setup_context and differentiate:
        recorded = _recorded(forward, setup_context, differentiate, leaving)

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_compiling() or not plain(arguments):
            return overload(*arguments)
        if torch.is_grad_enabled():
            for argument in arguments:
                if isinstance(argument, Tensor) and argument.requires_grad:
                    return recorded(*arguments)
        return forward(*arguments)

    return call


def _refuse(name: str, ctx: object, *upstream: Tensor) -> tuple[None, ...]:
    raise NotImplementedError(f"{name.removesuffix('_backward')}: only first derivatives are implemented")


def _recorded(
    run: Callable[..., Any],
    setup_context: Callable[..., None],
    differentiate: Callable[..., Any],
    leaving: int | None,
) -> Callable[..., Any]:
    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:  # a setup_context of its own costs 15 us
            output = run(*arguments)
            setup_context(ctx, arguments, output)
            return output[:leaving] if leaving else output

        backward = staticmethod(differentiate)

    apply: Callable[..., Any] = Direct.apply
    return apply


def plain(arguments: tuple[Any, ...]) -> bool:
    """Whether nothing but the kernels needs to see a call with these arguments."""
    for argument in arguments:
        if isinstance(argument, Tensor) and (
            type(argument) not in (Tensor, torch.nn.Parameter) or argument.device.type not in _CORES
        ):
            return False
    return not (torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active())


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
