"""From tensors to the launchers of the native core, and the one way in which every op is dispatched."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sal_fast import _native
from sal_fast.ops._modes import plain, transformed

# The codes of csrc/include/sal_fast/launch.h.
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}

# kMostSide of csrc/include/sal_fast/launch.h.
MOST_SIDE = 1 << 14

# Looked up once: torch.compile guards a constant, and would not follow the loader.
_CORES = {"cpu": _native.core(), "cuda": _native.cuda_core()}

library = torch.library.Library("sal_fast", "FRAGMENT")


def native(tensor: Tensor) -> bool:
    """True if a kernel is compiled for tensors of this device and dtype."""
    return has_core(tensor.device) and tensor.dtype in DTYPES


def has_core(device: torch.device) -> bool:
    """True if there are kernels that run on this device."""
    return _CORES.get(device.type) is not None and (device.type != "cuda" or _runs_on(device.index))


@torch.compiler.assume_constant_result
def _runs_on(gpu: int) -> bool:
    """True if this GPU and its driver can run our kernels. If they cannot, this warns once."""
    return _native.runs_on(gpu)


def launch(name: str, device: torch.device, **fields: Any) -> None:
    """Call launcher `name` with the fields of its struct in csrc/include/sal_fast/launch, by their names.

    A tensor stands for its address, and None for a null pointer. On the CPU the launcher uses
    `torch.get_num_threads()` threads. On a GPU it works on the current stream, in a workspace that is
    allocated here if the launcher needs one.

    The launcher releases the GIL, so that another thread may allocate meanwhile. The tensors and the
    workspace are held here until it returns. Its kernels are in the stream by then: whoever gets the memory
    next on this stream runs after them.
    """
    core = _CORES[device.type]
    if device.type == "cpu":
        getattr(core, name + "_cpu")(fields, torch.get_num_threads())
        return
    with torch.cuda.device(device):
        floats_needed, workspace = getattr(core, name + "_workspace"), None
        if floats_needed is not None:
            workspace = torch.empty(floats_needed(fields), dtype=torch.float32, device=device)
        getattr(core, name + "_cuda")(fields, workspace, torch.cuda.current_stream().cuda_stream)


def prepared(name: str, **fields: Any) -> Callable[..., None]:
    """Launcher `name` of the CPU, which reads its fields here once.

    It is called with the number of threads, and with the tensors of the struct's pointers in their order.
    Those take the place of what was given here, so that None does for any of them.
    """
    launcher: Callable[..., None] = getattr(_CORES["cpu"], name + "_prepared")(fields)
    return launcher


class Fallback(NamedTuple):
    """It runs if the kernels do not take the arguments. Both callables get the operator's arguments."""

    takes: Callable[..., bool]  # tells whether the kernels take them
    reference: Callable[..., Any]  # gives the operator's results in plain torch
    # False: the reference runs instead of the operator, and autograd differentiates it. True: the operator is
    # defined for every device and dtype and runs the reference inside, and its derivative serves both.
    inside: bool = False


class Derivative(NamedTuple):
    """How autograd differentiates an operator."""

    save: Callable[..., None]  # called as save(ctx, inputs=..., output=...), after the forward
    backward: Callable[..., Any]  # backward(ctx, *upstream) gives the gradients to the arguments
    leaving: int | None = None  # how many results the caller looks at; the derivative needs the others


def operator(
    schema: str,
    empty: Callable[..., Any],
    fill: Callable[..., None],
    fallback: Fallback | None = None,
    derivative: Derivative | None = None,
) -> Callable[..., Any]:
    """Define the torch operator sal_fast::<name>, and return the function that an op calls.

    Args:
        schema: the name, arguments and results of the operator.
        empty: allocates the results, also those of a trace. It gets the operator's arguments.
        fill: called as fill(results, *arguments), computes the results by calls of `launch`.
        fallback: None where the kernels take all, as for the backward of an operator that ran.
        derivative: None makes a derivative of the operator an error.

    There are three ways through the function. `way` chooses.

    * Torch's dispatcher takes 40 us for an operator that is written in Python, more than a small kernel. So
      plain tensors take the short way: the same functions, as a `torch.autograd.Function`.
    * Whatever needs to see an operator (torch.compile, tensor subclasses, dispatch modes, other devices)
      sees it.
    * Under `torch.func` and in forward mode the reference runs, because torch transforms it by itself.
    """
    name = schema.split("(")[0]
    if fallback:
        fallback = fallback._replace(reference=_without_autocast(fallback.reference))
    inside, beside = (fallback, None) if fallback and fallback.inside else (None, fallback)

    def run(*arguments: Any) -> Any:
        if inside and not inside.takes(*arguments):
            return inside.reference(*arguments)
        results = empty(*arguments)
        fill(results, *arguments)
        return results

    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    for key in ("CPU", "CUDA") if not inside else ("CompositeExplicitAutograd",):
        torch.library.impl(library, name, key)(run)
    torch.library.register_fake(f"sal_fast::{name}", empty, lib=library)
    save, backward = (
        (derivative.save, derivative.backward) if derivative else (None, _refuse_derivative(name))
    )
    torch.library.register_autograd(f"sal_fast::{name}", backward, setup_context=save, lib=library)
    overload = getattr(torch.ops.sal_fast, name).default
    recorded = _recorded(run, derivative) if derivative else overload

    def call(*arguments: Any) -> Any:
        if fallback and transformed():
            return fallback.reference(*arguments)
        if beside and not beside.takes(*arguments):
            return beside.reference(*arguments)
        if not plain(arguments):
            return overload(*arguments)
        if torch.is_grad_enabled():
            for argument in arguments:
                if isinstance(argument, Tensor) and argument.requires_grad:
                    return recorded(*arguments)
        return run(*arguments)

    return call


def _without_autocast(reference: Callable[..., Any]) -> Callable[..., Any]:
    """The reference in the precision of its arguments, as the kernels compute, also under autocast."""

    def run(first: Tensor, *others: Any) -> Any:
        device = first.device.type
        if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
            return reference(first, *others)
        with torch.autocast(device, enabled=False):
            return reference(first, *others)

    return run


def _only_first(name: str) -> str:
    return f"{name.removesuffix('_backward')}: only first derivatives are implemented"


def _refuse_derivative(name: str) -> Callable[..., Any]:
    def refuse(ctx: object, *upstream: Tensor) -> None:
        raise NotImplementedError(_only_first(name))

    return refuse


def _recorded(run: Callable[..., Any], derivative: Derivative) -> Callable[..., Any]:
    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:  # a setup_context of its own costs 15 us
            results = run(*arguments)
            derivative.save(ctx, arguments, results)
            return results[: derivative.leaving] if derivative.leaving else results

        backward = staticmethod(derivative.backward)

    apply: Callable[..., Any] = Direct.apply
    return apply


class _Refusing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, message: str, value: Tensor, *inputs: Tensor) -> Tensor:
        ctx.message = message
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> None:
        raise NotImplementedError(ctx.message)


def without_derivative(message: str, value: Tensor, *inputs: Tensor) -> Tensor:
    """The value, computed from `inputs`. Whoever differentiates it gets an error with this message."""
    if not torch.is_grad_enabled():
        return value
    result: Tensor = _Refusing.apply(message, value, *inputs)
    return result


def first_derivative(op: str, gradient: Tensor, *inputs: Tensor) -> Tensor:
    """The gradient of an operator that makes it in the forward. A second derivative is then an error."""
    return without_derivative(_only_first(op), gradient, *inputs)
