"""Paired differences between regimes: the same panel and seed, Student's t over the seeds."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from sal_fast.experiment.regimes import REGIMES
from sal_fast.report.runs import Run, alike, by_group, by_panel, compared_options

CONFIDENCE = 0.95
BASELINE, PAPER = "b1", "sal"  # the regime without maps, and the one that the paper proposes
Pairs = Sequence[tuple[Run, Run]]
MEASURES: dict[str, Callable[[Run], float | None]] = {
    "aulc_dice": lambda run: run.aulc("dice"),
    "aulc_accuracy": lambda run: run.aulc("accuracy"),
    "dice": lambda run: run.last.dice,
    "accuracy": lambda run: run.last.accuracy,
}
NAMES = {
    "aulc_dice": "AULC Dice",
    "aulc_accuracy": "AULC accuracy",
    "dice": "Dice, last round",
    "accuracy": "accuracy, last round",
}


@dataclass(frozen=True)
class Difference:
    """The mean of n paired differences, and its confidence interval."""

    mean: float
    low: float
    high: float
    n: int


def interval(values: Sequence[float]) -> Difference | None:
    """mean -+ t * sigma / sqrt(n), n - 1 degrees of freedom; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    mean = fmean(values)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * stdev(values) / math.sqrt(n)
    return Difference(mean, mean - half, mean + half, n)


def paired(a: Sequence[Run], b: Sequence[Run]) -> Pairs:
    """The finished runs of both that share a seed."""
    others = {run.seed: run for run in b if run.finished}
    return [(run, others[run.seed]) for run in a if run.finished and run.seed in others]


def gains(pairs: Pairs, measure: str) -> list[float]:
    """a - b of the pairs in which both have a value."""
    values = [(MEASURES[measure](a), MEASURES[measure](b)) for a, b in pairs]
    return [x - y for x, y in values if x is not None and y is not None]


def couples(panel: Sequence[Run], a: str, b: str) -> Iterator[Pairs]:
    """The pairs of runs of each two groups, of regimes a and b, that differ in nothing else."""
    for x, y in itertools.product(by_group(panel).values(), repeat=2):
        if (x[0].regime, y[0].regime) == (a, b) and alike(x[0], y[0]) and (pairs := paired(x, y)):
            yield pairs


def over_baseline(panel: Sequence[Run]) -> Iterator[Pairs]:
    """The pairs of each group of a panel with the baseline's runs."""
    for regime in dict.fromkeys(run.regime for run in panel if run.regime != BASELINE):
        yield from couples(panel, regime, BASELINE)


def regime_pairs() -> list[tuple[str, str]]:
    """Every regime against b1, and sal against every other one."""
    against = [(name, BASELINE) for name in REGIMES if name != BASELINE]
    return against + [(PAPER, name) for name in REGIMES if name not in (BASELINE, PAPER)]


def least_budget(runs: Sequence[Run]) -> float | None:
    """The smallest human budget among the finished runs of sal."""
    found = (run.budget for run in runs if run.regime == PAPER and run.finished)
    return min((budget for budget in found if budget is not None), default=None)


def table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """In each panel a row for each pair of groups with two common finished seeds or more.

    Against a regime whose maps no person draws, sal stands with its smallest human budget only.
    """
    rows = []
    for panel in by_panel(runs).values():
        for a, b in regime_pairs():
            least_only = a == PAPER and b != BASELINE and not REGIMES[b].uses_human_maps
            rows += [
                _row(pairs)
                for pairs in couples(panel, a, b)
                if len(pairs) > 1 and not (least_only and pairs[0][0].budget != least_budget(panel))
            ]
    return rows


def _row(pairs: Pairs) -> dict[str, Any]:
    x, y = pairs[0]
    found = {name: interval(gains(pairs, name)) for name in MEASURES}
    return {
        "data": x.dataset,
        **{name: x.setting(name) for name in compared_options()},
        "panel": x.panel,
        "pair": f"{x.line} − {y.line}",
        "n": len(pairs),
        **{
            f"{name}_{part}": getattr(difference, part, None)
            for name, difference in found.items()
            for part in ("mean", "low", "high")
        },
    }
