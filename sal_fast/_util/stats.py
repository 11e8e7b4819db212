"""Statistics that several parts of the package need: Cohen's kappa, and intervals by the bootstrap."""

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES, CONFIDENCE = 10_000, 0.95
NUMBERS_AT_ONCE = 2**22  # of the resamples, so that large samples need not much memory


def kappa(one: Sequence[object], other: Sequence[object]) -> float | None:
    """Cohen's kappa of two lists of classes: `(p_o - p_e) / (1 - p_e)`, at most 1.

    p_o is the share of places where both lists name the same class. p_e is the share that would be equal by
    chance, the sum over classes of the products of both lists' shares. Source: Cohen 1960.

    Returns None for empty lists, and if both lists name one class alone, where p_e is 1.
    """
    a, b = np.asarray(one), np.asarray(other)
    if not len(a):
        return None
    chance = sum(float(np.mean(a == label)) * float(np.mean(b == label)) for label in np.unique(a))
    return None if chance == 1 else (float(np.mean(a == b)) - chance) / (1 - chance)


def interval(
    samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], rng: np.random.Generator
) -> tuple[float, float]:
    """The 95 % interval of a statistic by the bootstrap (Efron 1979): its low and its high end.

    It lies between the 2.5th and the 97.5th percentile of the statistic over 10,000 draws. Each draw takes
    from each sample as many values as it has, with replacement and independently of the other samples.

    Args:
        samples: float64 [n] each, n >= 2.
        statistic: a function of the samples and of `axis`, the axis along which their values lie.
        rng: the generator that the draws are made with.
    """
    from scipy.stats import bootstrap  # its import takes longer than the work

    found = bootstrap(
        tuple(samples),
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, NUMBERS_AT_ONCE // sum(map(len, samples))),
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=rng,  # newer releases also call it rng
    ).confidence_interval
    return float(found.low), float(found.high)
