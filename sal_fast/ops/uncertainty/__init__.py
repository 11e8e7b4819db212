"""The uncertainty of each row of logits: margin, least confidence or entropy."""

from typing import Literal, get_args

from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops.uncertainty import registration

Kind = Literal["margin", "least-confidence", "entropy"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def uncertainty(logits: Tensor, kind: Kind = "margin") -> Tensor:
    """How unsure a classifier is of each sample, from one read of its logits. Higher is queried first.

    With p = softmax(logits[i]) and p1 >= p2 its two largest probabilities::

        margin            1 - (p1 - p2)      in [0, 1]; 0 when C = 1
        least-confidence  1 - p1             in [0, 1 - 1/C]
        entropy           -sum p log p       in [0, log C], in nats

    All three are computed from sums over all classes but the likeliest. So they keep their relative
    precision, and with it the order of the samples, even where p1 rounds to 1. A logit of -inf has
    probability 0 and contributes 0. In float32 so does a logit that is 88 or more below the largest of its
    row.

    Args:
        logits: [N, C], C >= 1, float32, float16, bfloat16 (float32 arithmetic) or float64. Rows may be
            strided. They are not copied as long as each row is contiguous.
        kind: one of `KINDS`.

    Returns:
        [N], float32, or float64 for float64 logits. It can be differentiated once, in the logits. Of equal
        logits, the one of the lowest class counts as the larger.

    Raises:
        TypeError: logits is not a tensor, or of another dtype.
        ValueError: a shape other than [N, C >= 1]; an unknown kind; on the CPU a row that holds NaN or +inf,
            or nothing but -inf. On a GPU such a row gives NaN, because the check would have to wait.

    Source: paper App. A.1.
    """
    _checks.computed("uncertainty", logits=logits)
    _checks.shape("uncertainty", "logits", logits, None, None)
    if logits.shape[1] == 0:
        raise ValueError(f"uncertainty: logits must have at least one class, got {list(logits.shape)}")
    _checks.choice("uncertainty", "kind", kind, KINDS)
    return registration.uncertainty(logits, kind)
