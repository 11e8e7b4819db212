"""How the values of the images become the result."""

from typing import Literal, get_args

from torch import Tensor

Reduction = Literal["none", "mean", "sum"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)


def reduce(values: Tensor, reduction: str) -> Tensor:
    """Reduce the values [B] of the images. The mean of an empty batch is 0, not NaN."""
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" and values.shape[0] else values.sum()
