"""Uncertainty of each row of logits: margin, least confidence, entropy."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops.uncertainty import registration

Kind = Literal["margin", "least-confidence", "entropy"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def uncertainty(logits: Tensor, kind: Kind = "margin") -> Tensor:
    """How unsure a classifier is of each sample, from its logits in one read; higher is queried first.

    With p = softmax(logits[i]) and p1 >= p2 its two largest probabilities::

        margin            1 - (p1 - p2)      in [0, 1]; 0 when C = 1
        least-confidence  1 - p1             in [0, 1 - 1/C]
        entropy           -sum p log p       in [0, log C], in nats

    All three are taken from sums over the classes but the first, so that they keep their relative precision,
    and with it the order of the samples, where p1 rounds to 1. A logit of -inf has probability 0 and
    contributes 0. So does, in float32, one that is 88 or more below the row's largest.

    Args:
        logits: [N, C], C >= 1, float32, float16, bfloat16 (float32 arithmetic) or float64. Rows may be
            strided; they are not copied as long as a row is contiguous.
        kind: one of `KINDS`.

    Returns:
        [N], float32, or float64 for float64 logits.

        Differentiable in the logits, once. Between equal logits the lowest class counts as the larger.

    Raises:
        TypeError: logits is not a tensor, or of another dtype.
        ValueError: a shape other than [N, C >= 1]; another kind; on the CPU a row that holds NaN or +inf, or
            nothing but -inf. On a GPU such a row gives NaN, without a synchronisation.

    Source: Boyd et al., SAL, App. A.1.
    """
    _checks.floating("uncertainty", logits=logits)
    if logits.dtype not in _DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise TypeError(f"uncertainty: logits must be of dtype {names}, got {logits.dtype}")
    _checks.shape("uncertainty", "logits", logits, None, None)
    if logits.shape[1] == 0:
        raise ValueError(f"uncertainty: logits must have at least one class, got {list(logits.shape)}")
    _checks.choice("uncertainty", "kind", kind, KINDS)
    return registration.uncertainty(logits, kind)
