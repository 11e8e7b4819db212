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


def _forward(logits: Tensor, kind: str) -> Tensor:
    if _launch.native(logits):
        logits, result = _with_contiguous_rows(logits), _empty_result(logits)
        _launch.launch("uncertainty", logits.device, *_fields(logits, kind), result.data_ptr())
    else:
        result = reference.uncertainty(logits, kind)
    if logits.device.type == "cpu":
        _refuse_bad_rows(result)
    return result


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


def _forward_fake(logits: Tensor, kind: str) -> Tensor:
    return _empty_result(logits)


def _backward_fake(upstream: Tensor, logits: Tensor, kind: str) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
    logits, ctx.kind = inputs
    ctx.save_for_backward(logits)


def _differentiate(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
    (logits,) = ctx.saved_tensors
    return _uncertainty_backward(upstream, logits, ctx.kind), None


_EVERYWHERE = ("CompositeExplicitAutograd",)
_uncertainty_backward = _launch.operator(
    "uncertainty_backward(Tensor upstream, Tensor logits, str kind) -> Tensor",
    _backward,
    _backward_fake,
    devices=_EVERYWHERE,
)
_uncertainty = _launch.operator(
    "uncertainty(Tensor logits, str kind) -> Tensor",
    _forward,
    _forward_fake,
    _setup_context,
    _differentiate,
    devices=_EVERYWHERE,
)


def uncertainty(logits: Tensor, kind: str) -> Tensor:
    result: Tensor = _uncertainty(logits, kind)
    return result
