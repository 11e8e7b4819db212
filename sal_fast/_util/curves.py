"""Areas under learning curves."""

from collections.abc import Sequence


def aulc(x: Sequence[float], y: Sequence[float]) -> float:
    """trapezoid(y, x) / (x[-1] - x[0]); the mean where x stands still: one round, or nothing was labelled."""
    if x[-1] == x[0]:
        return sum(y) / len(y)
    area = sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1))
    return area / (x[-1] - x[0])
