"""Paired differences between regimes: the same panel and seed, Student's t over the seeds."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from sal_fast.report.runs import Run, alike, by_group, by_panel

CONFIDENCE = 0.95
Measure = Callable[[Run], float | None]
MEASURES: dict[str, Measure] = {
    "aulc_dice": lambda run: run.aulc("dice"),
    "aulc_accuracy": lambda run: run.aulc("accuracy"),
    "dice": lambda run: run.last.dice,
    "accuracy": lambda run: run.last.accuracy,
}
PAIRS = (
    ("b2", "b1"),
    ("sal", "b1"),
    ("sal", "b2"),
    ("sal", "tait"),
    ("sal", "sal-single"),
    ("sal", "no-ai-saliency"),
    ("tait", "b1"),
    ("sal-single", "b1"),
    ("no-ai-saliency", "b1"),
    ("sal", "segmenter"),
    ("segmenter", "b1"),
)
LEAST_BUDGET_ONLY = ("sal", "segmenter")


@dataclass(frozen=True)
class Difference:
    """Mean of n paired differences, and its confidence interval."""

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


def paired(a: Sequence[Run], b: Sequence[Run]) -> list[tuple[Run, Run]]:
    """The finished runs of both that share a seed."""
    others = {run.seed: run for run in b if run.finished}
    return [(run, others[run.seed]) for run in a if run.finished and run.seed in others]


def gains(pairs: Sequence[tuple[Run, Run]], measure: Measure) -> list[float]:
    """a - b of the pairs that both have a value."""
    values = [(measure(a), measure(b)) for a, b in pairs]
    return [x - y for x, y in values if x is not None and y is not None]


def couples(panel: Sequence[Run], a: str, b: str) -> Iterator[tuple[list[Run], list[Run]]]:
    """The groups of regimes a and b that differ in nothing else."""
    groups = list(by_group(panel).values())
    for x in groups:
        for y in groups:
            if (x[0].regime, y[0].regime) == (a, b) and alike(x[0], y[0]):
                yield x, y


def least_budget(runs: Sequence[Run]) -> float | None:
    """The smallest human budget among the runs of sal that are finished."""
    found = (run.budget for run in runs if run.regime == "sal" and run.finished)
    return min((budget for budget in found if budget is not None), default=None)


def table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row for each pair of groups with two common finished seeds or more, in PAIRS' order in each panel."""
    rows = []
    for panel in by_panel(runs).values():
        for pair in PAIRS:
            for x, y in couples(panel, *pair):
                if pair == LEAST_BUDGET_ONLY and x[0].budget != least_budget(panel):
                    continue
                pairs = paired(x, y)
                found = {name: interval(gains(pairs, measure)) for name, measure in MEASURES.items()}
                if len(pairs) > 1:
                    rows.append(
                        {
                            "data": x[0].dataset,
                            **{name: x[0].config[name] for name in ("criterion", "probe", "arch")},
                            "panel": x[0].panel,
                            "pair": f"{x[0].line} − {y[0].line}",
                            "n": len(pairs),
                            **{
                                f"{name}_{part}": getattr(difference, part, None)
                                for name, difference in found.items()
                                for part in ("mean", "low", "high")
                            },
                        }
                    )
    return rows
