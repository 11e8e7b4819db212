"""Areas under learning curves."""

from collections.abc import Sequence


def aulc(x: Sequence[float], y: Sequence[float]) -> float:
    """The area under a learning curve divided by its width, `trapezoid(y, x) / (x[-1] - x[0])`.

    If x stands still, the curve has no width: the mean of y is returned. That is so if there is one round,
    or if people labelled nothing.
    """
    if x[-1] == x[0]:
        return sum(y) / len(y)
    area = sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1))
    return area / (x[-1] - x[0])
