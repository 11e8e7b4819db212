"""The uncertainty of each row of logits, in plain torch. The kernels are tested against it."""

import torch
from torch import Tensor


def _parts(logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z = x - max, exp(z), the column of the largest logit, and the sum of exp(z) over all other columns.

    That sum is 1 / p1 - 1. It gives 1 - p1 without cancellation, however confident the model is.
    """
    x = logits.to(torch.promote_types(logits.dtype, torch.float32))
    first = x.argmax(1, keepdim=True)  # of equals, the lowest column
    z = x - x.gather(1, first)
    weight = z.exp()
    z = z.masked_fill(weight == 0, 0)  # 0 log 0 = 0, for logits of -inf too
    return z, weight, first, weight.scatter(1, first, 0).sum(1, keepdim=True)


def uncertainty(logits: Tensor, kind: str) -> Tensor:
    """See `sal_fast.ops.uncertainty`."""
    z, weight, first, others = _parts(logits)
    total = weight.gather(1, first) + others
    if kind == "entropy":
        value = others.log1p() - (weight * z).sum(1, keepdim=True) / total
    elif kind == "least-confidence":
        value = others / total
    else:
        second = logits.scatter(1, first, -torch.inf).argmax(1, keepdim=True)  # of equals, the lowest column
        value = (others + weight.scatter(1, first, 0).gather(1, second)) / total
    return value.squeeze(1)


def uncertainty_backward(upstream: Tensor, logits: Tensor, kind: str) -> Tensor:
    """The gradient to the logits, from the gradient to the uncertainties. Derivation: README.md."""
    z, weight, first, others = _parts(logits)
    p = weight / (weight.gather(1, first) + others)
    if kind == "entropy":
        grad = p * ((p * z).sum(1, keepdim=True) - z)
    elif kind == "least-confidence":
        p1 = p.gather(1, first)
        grad = (p * p1).scatter(1, first, -p1 * uncertainty(logits, kind)[:, None])
    else:
        value = uncertainty(logits, kind)[:, None]
        grad = (p * (1 - value)).scatter(1, first, -p.gather(1, first) * value)
        if logits.shape[1] > 1:
            second = logits.scatter(1, first, -torch.inf).argmax(1, keepdim=True)
            second = torch.where(second == first, 1 - first.clamp(max=1), second)  # all others are -inf
            grad = grad.scatter(1, second, p.gather(1, second) * (2 - value))
    return (grad * upstream[:, None]).to(logits.dtype)
