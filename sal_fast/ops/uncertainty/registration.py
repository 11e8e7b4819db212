"""The torch operators sal_fast::uncertainty and sal_fast::uncertainty_backward.

The public function has checked shapes and types. Bad values are looked for in the result, on the CPU and
inside the operator, so that none of this is traced.
"""

from typing import Any

import torch
from torch import Tensor

from sal_fast.ops import _checks, _launch
from sal_fast.ops.uncertainty import reference

_KIND_CODES = {"margin": 0, "least-confidence": 1, "entropy": 2}  # of launch/uncertainty.h


def _inputs(logits: Tensor, kind: str) -> dict[str, Any]:
    if logits.shape[1] > 1 and logits.stride(1) != 1:
        logits = logits.contiguous()
    rows, columns = logits.shape
    return {
        "logits": logits, "dtype": _launch.DTYPES[logits.dtype], "rows": rows, "columns": columns,
        "row_stride": logits.stride(0), "kind": _KIND_CODES[kind],
    }  # fmt: skip


def _without_bad_rows(result: Tensor) -> Tensor:
    """The result, if it has no NaN. A GPU would have to be waited for, so there NaN is let through."""
    if not _checks.visible(result):
        return result
    bad = result.isnan()
    if bad.any():
        rows = bad.nonzero().flatten().tolist()
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        raise ValueError(
            "uncertainty: logits must hold neither NaN nor +inf, and a finite value in each row; "
            f"got another in row {rows[0]}{more}"
        )
    return result


def _fill(result: Tensor, logits: Tensor, kind: str) -> None:
    _launch.launch("uncertainty", logits.device, **_inputs(logits, kind), out=result)
    _without_bad_rows(result)


def _reference(logits: Tensor, kind: str) -> Tensor:
    return _without_bad_rows(reference.uncertainty(logits, kind))


def _empty(logits: Tensor, kind: str) -> Tensor:
    return logits.new_empty(logits.shape[0], dtype=torch.promote_types(logits.dtype, torch.float32))


def _backward_fill(grad: Tensor, upstream: Tensor, logits: Tensor, kind: str) -> None:
    _launch.launch(
        "uncertainty_backward", logits.device, **_inputs(logits, kind), upstream=upstream,
        upstream_stride=upstream.stride(0), grad=grad,
    )  # fmt: skip


def _backward_empty(upstream: Tensor, logits: Tensor, kind: str) -> Tensor:
    return logits.new_empty(logits.shape)


def _save(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
    logits, ctx.kind = inputs
    ctx.save_for_backward(logits)


def _differentiate(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
    (logits,) = ctx.saved_tensors
    return uncertainty_backward(upstream, logits, ctx.kind), None


# The references run inside the operators: autograd's derivative of the reference would divide a gradient
# among equal logits.
uncertainty_backward = _launch.operator(
    "uncertainty_backward(Tensor upstream, Tensor logits, str kind) -> Tensor",
    _backward_empty,
    _backward_fill,
    _launch.Fallback(
        lambda upstream, logits, kind: _launch.native(logits), reference.uncertainty_backward, inside=True
    ),
)
uncertainty = _launch.operator(
    "uncertainty(Tensor logits, str kind) -> Tensor",
    _empty,
    _fill,
    _launch.Fallback(lambda logits, kind: _launch.native(logits), _reference, inside=True),
    _launch.Derivative(_save, _differentiate),
)
