"""The torch operators sal_fast::uncertainty and sal_fast::uncertainty_backward.

They take every device and dtype: where no kernel is compiled, the reference runs inside. The public function
has checked shapes and types; bad values are looked for in the result on the CPU, inside the operator, so that
none of it is traced.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sal_fast.ops import _launch
from sal_fast.ops.uncertainty import reference

_KIND_CODES = {"margin": 0, "least-confidence": 1, "entropy": 2}  # of launch/uncertainty.h

_launch.define("uncertainty(Tensor logits, str kind) -> Tensor")
_launch.define("uncertainty_backward(Tensor upstream, Tensor logits, str kind) -> Tensor")


def uncertainty(logits: Tensor, kind: str) -> Tensor:
    result: Tensor = torch.ops.sal_fast.uncertainty.default(logits, kind)
    return result


def _empty_result(logits: Tensor) -> Tensor:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return logits.new_empty(logits.shape[0], dtype=dtype)


def _with_contiguous_rows(logits: Tensor) -> Tensor:
    return logits if logits.shape[1] <= 1 or logits.stride(1) == 1 else logits.contiguous()


def _fields(logits: Tensor, kind: str) -> tuple[int, ...]:
    return (
        logits.data_ptr(), _launch.DTYPES[logits.dtype], *logits.shape, logits.stride(0), _KIND_CODES[kind]
    )  # fmt: skip


def _refuse_bad_rows(result: Tensor) -> None:
    bad = result.isnan()
    if bad.any():
        rows = bad.nonzero().flatten().tolist()
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        raise ValueError(
            "uncertainty: logits must hold neither NaN nor +inf, and a finite value in each row; "
            f"got another in row {rows[0]}{more}"
        )


@torch.library.impl(_launch.library, "uncertainty", "CompositeExplicitAutograd")
def _forward(logits: Tensor, kind: str) -> Tensor:
    if _launch.native(logits):
        logits, result = _with_contiguous_rows(logits), _empty_result(logits)
        _launch.launch("uncertainty", logits.device, *_fields(logits, kind), result.data_ptr())
    else:
        result = reference.uncertainty(logits, kind)
    if logits.device.type == "cpu":
        _refuse_bad_rows(result)
    return result


@torch.library.impl(_launch.library, "uncertainty_backward", "CompositeExplicitAutograd")
def _backward(upstream: Tensor, logits: Tensor, kind: str) -> Tensor:
    if not _launch.native(logits):
        return reference.uncertainty_backward(upstream, logits, kind)
    logits, grad = _with_contiguous_rows(logits), logits.new_empty(logits.shape)
    _launch.launch(
        "uncertainty_backward",
        logits.device,
        *_fields(logits, kind),
        upstream.data_ptr(),
        upstream.stride(0),
        grad.data_ptr(),
    )
    return grad


@torch.library.register_fake("sal_fast::uncertainty", lib=_launch.library)
def _forward_fake(logits: Tensor, kind: str) -> Tensor:
    return _empty_result(logits)


@torch.library.register_fake("sal_fast::uncertainty_backward", lib=_launch.library)
def _backward_fake(upstream: Tensor, logits: Tensor, kind: str) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
    logits, ctx.kind = inputs
    ctx.save_for_backward(logits)


def _differentiate(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
    (logits,) = ctx.saved_tensors
    return torch.ops.sal_fast.uncertainty_backward.default(upstream, logits, ctx.kind), None


torch.library.register_autograd(
    "sal_fast::uncertainty", _differentiate, setup_context=_setup_context, lib=_launch.library
)
_launch.no_second_derivative("uncertainty")
