"""The torch operators sal_fast::uncertainty and sal_fast::uncertainty_backward, and what runs them where.

Every device runs the reference unless a kernel is compiled for it. The public function has checked shapes and
types; bad values are looked for in the result on the CPU, inside the operator, so that none of it is traced.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sal_fast import _native
from sal_fast.ops.uncertainty import reference

# The codes of csrc/include/sal_fast/launch.h and uncertainty.h.
_DTYPE_CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
_KIND_CODES = {"margin": 0, "least-confidence": 1, "entropy": 2}

_library = torch.library.Library("sal_fast", "FRAGMENT")
_library.define("uncertainty(Tensor logits, str kind) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))
_library.define(
    "uncertainty_backward(Tensor upstream, Tensor logits, str kind) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def uncertainty(logits: Tensor, kind: str) -> Tensor:
    result: Tensor = torch.ops.sal_fast.uncertainty.default(logits, kind)
    return result


def _empty_result(logits: Tensor) -> Tensor:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return logits.new_empty(logits.shape[0], dtype=dtype)


def _kernel_takes(core: ModuleType | None, logits: Tensor) -> bool:
    return core is not None and logits.dtype in _DTYPE_CODES


def _matrix(logits: Tensor, kind: str) -> tuple[Tensor, tuple[int, int, int, int, int, int]]:
    """The logits with contiguous rows, to be kept alive, and the launchers' leading arguments."""
    if logits.shape[1] > 1 and logits.stride(1) != 1:
        logits = logits.contiguous()
    rows, columns = logits.shape
    arguments = (
        logits.data_ptr(), _DTYPE_CODES[logits.dtype], rows, columns, logits.stride(0), _KIND_CODES[kind]
    )  # fmt: skip
    return logits, arguments


def _refuse_bad_rows(result: Tensor) -> None:
    bad = result.isnan()
    if bad.any():
        rows = bad.nonzero().flatten().tolist()
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        raise ValueError(
            "uncertainty: logits must hold neither NaN nor +inf, and a finite value in each row; "
            f"got another in row {rows[0]}{more}"
        )


@torch.library.impl(_library, "uncertainty", "CompositeExplicitAutograd")
def _forward(logits: Tensor, kind: str) -> Tensor:
    return reference.uncertainty(logits, kind)


@torch.library.impl(_library, "uncertainty", "CPU")
def _forward_cpu(logits: Tensor, kind: str) -> Tensor:
    core = _native.core()
    if core is not None and _kernel_takes(core, logits):
        result = _empty_result(logits)
        _kept, arguments = _matrix(logits, kind)
        core.uncertainty_forward_cpu(*arguments, result.data_ptr(), torch.get_num_threads())
    else:
        result = reference.uncertainty(logits, kind)
    _refuse_bad_rows(result)
    return result


@torch.library.impl(_library, "uncertainty", "CUDA")
def _forward_cuda(logits: Tensor, kind: str) -> Tensor:
    core = _native.cuda_core()
    if core is None or not _kernel_takes(core, logits):
        return reference.uncertainty(logits, kind)
    result = _empty_result(logits)
    with torch.cuda.device(logits.device):
        _kept, arguments = _matrix(logits, kind)
        core.uncertainty_forward_cuda(*arguments, result.data_ptr(), torch.cuda.current_stream().cuda_stream)
    return result


@torch.library.impl(_library, "uncertainty_backward", "CompositeExplicitAutograd")
def _backward(upstream: Tensor, logits: Tensor, kind: str) -> Tensor:
    return reference.uncertainty_backward(upstream, logits, kind)


@torch.library.impl(_library, "uncertainty_backward", "CPU")
def _backward_cpu(upstream: Tensor, logits: Tensor, kind: str) -> Tensor:
    core = _native.core()
    if core is None or not _kernel_takes(core, logits):
        return reference.uncertainty_backward(upstream, logits, kind)
    grad = logits.new_empty(logits.shape)
    _kept, arguments = _matrix(logits, kind)
    core.uncertainty_backward_cpu(
        *arguments, upstream.data_ptr(), upstream.stride(0), grad.data_ptr(), torch.get_num_threads()
    )
    return grad


@torch.library.impl(_library, "uncertainty_backward", "CUDA")
def _backward_cuda(upstream: Tensor, logits: Tensor, kind: str) -> Tensor:
    core = _native.cuda_core()
    if core is None or not _kernel_takes(core, logits):
        return reference.uncertainty_backward(upstream, logits, kind)
    grad = logits.new_empty(logits.shape)
    with torch.cuda.device(logits.device):
        _kept, arguments = _matrix(logits, kind)
        core.uncertainty_backward_cuda(
            *arguments,
            upstream.data_ptr(),
            upstream.stride(0),
            grad.data_ptr(),
            torch.cuda.current_stream().cuda_stream,
        )
    return grad


@torch.library.register_fake("sal_fast::uncertainty", lib=_library)
def _forward_fake(logits: Tensor, kind: str) -> Tensor:
    return _empty_result(logits)


@torch.library.register_fake("sal_fast::uncertainty_backward", lib=_library)
def _backward_fake(upstream: Tensor, logits: Tensor, kind: str) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
    logits, ctx.kind = inputs
    ctx.save_for_backward(logits)


def _differentiate(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
    (logits,) = ctx.saved_tensors
    return torch.ops.sal_fast.uncertainty_backward.default(upstream, logits, ctx.kind), None


def _no_second_derivative(ctx: Any, *upstream: Tensor) -> tuple[None, ...]:
    raise NotImplementedError("uncertainty: only first derivatives are implemented")


torch.library.register_autograd(
    "sal_fast::uncertainty", _differentiate, setup_context=_setup_context, lib=_library
)
torch.library.register_autograd("sal_fast::uncertainty_backward", _no_second_derivative, lib=_library)
