"""Areas under learning curves."""

from collections.abc import Sequence


def aulc(x: Sequence[float], y: Sequence[float]) -> float:
    """trapezoid(y, x) / (x[-1] - x[0]); the value itself where all rounds have one count."""
    if x[-1] == x[0]:
        return y[-1]
    area = sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1))
    return area / (x[-1] - x[0])
