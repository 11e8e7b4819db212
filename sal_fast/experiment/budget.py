"""The plan of a run: how many images are labelled in each round, and for which queries people draw maps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sal_fast.errors import InputError

TOLERANCE = 1e-9  # sums of decimal fractions are not exact
AUTO: Literal["auto"] = "auto"  # a human budget that is found while running, or a share that is made to fit
LEAST_SHARE, LEAST_IMAGES = 0.05, 10  # of a start set and a query whose size is `auto`
PATIENCE = 2  # queries without a better prediction, after which the model takes over


Share = float | Literal["auto"]


@dataclass(frozen=True)
class Plan:
    """The sizes of the labelled set, and the queries that people draw maps for.

    Query 0 is the start set, and query r is asked after round r - 1.

    labelled: labelled[r] is the size of the labelled set in round r, round(P * min(stop, start + r * query))
        for a pool of P images. The last query takes the remainder.
    human: human[r] is True if people draw the maps of query r. That is so for the start set, and as long as
        start + r * query <= human_budget.
    auto: True if people draw the maps of every query until `takes_over` says otherwise.
    open_end: True if the run may end after any round (`stopping.ends`); then `labelled` goes on to the whole
        pool.
    """

    labelled: tuple[int, ...]
    human: tuple[bool, ...]
    auto: bool = False
    open_end: bool = False

    @property
    def rounds(self) -> int:
        return len(self.labelled)

    def until(self, rounds: int) -> Plan:
        """The plan of a run that ended after `rounds` rounds."""
        return replace(self, labelled=self.labelled[:rounds], human=self.human[:rounds], open_end=False)

    def asks_people(self, number: int, trials: Sequence[float | None]) -> bool:
        """True if people draw the maps of query `number`. `trials` are those of the queries before it."""
        return self.human[number] and not (self.auto and takes_over(trials[:number]))

    def query_size(self, number: int) -> int:
        return self.labelled[number] - (self.labelled[number - 1] if number else 0)


@dataclass(frozen=True)
class Stage:
    """The pool and the shares of it that a run had until it grew.

    queries: the number of queries that were asked until then, with the start set. They stay as they are.
    pool: the number of training images.
    """

    queries: int
    pool: int
    query_fraction: float
    stop_fraction: Share
    human_budget: Share


def plan(
    pool: int,
    start: float,
    query: float,
    stop: Share,
    human_budget: Share,
    earlier: Sequence[Stage] = (),
) -> Plan:
    """The plan for a training pool of `pool` images.

    The other numbers are shares of that pool; `stop` and `human_budget` may also be `auto`. `earlier` has the
    stages of a run that has grown. They plan its first queries, and `start` is a share of the first one's
    pool. The next query goes on from the images that they reached, before these were rounded.

    Raises InputError for a share that is out of range or less than one image.
    """
    open_end, stop = isinstance(stop, str), _share_of(stop, "--stop-fraction")
    for name, value in (("start", start), ("query", query), ("stop", stop)):
        if not 0 < value <= 1:
            raise InputError(
                f"--{name}-fraction {value:g}: expected a share of the pool above 0 and at most 1"
            )
        if name != "stop" and _count(pool, value) < 1:
            raise InputError(
                f"--{name}-fraction {value:g} of {pool} training images is less than one image; "
                f"the least is {1 / pool:.3g}"
            )
    if stop < start:
        raise InputError(f"--stop-fraction {stop:g} is below --start-fraction {start:g}")
    auto, most = isinstance(human_budget, str), _share_of(human_budget, "--human-budget")
    if not 0 <= most <= 1:
        raise InputError(f"--human-budget {most:g}: expected a share of the pool, 0 to 1, or auto")
    if most > 0 and _count(pool, most) < 1:
        raise InputError(f"--human-budget {most:g} of {pool} training images is less than one image")
    labelled: list[int] = []
    human: list[bool] = []
    images: list[float] = []  # as `labelled`, but not rounded
    now = Stage(-1, pool, query, stop, human_budget)
    for stage in (*earlier, now):
        begin = images[-1] / stage.pool if images else start
        end, most = _share_of(stage.stop_fraction, ""), _share_of(stage.human_budget, "")
        for step in itertools.count(1 if images else 0):
            if len(labelled) == stage.queries:
                break
            reached = begin + step * stage.query_fraction
            last = reached >= end - TOLERANCE
            count = _count(stage.pool, end if last else reached)
            if not labelled or count > labelled[-1]:  # a step of less than half an image asks for nothing
                labelled.append(count)
                human.append(auto or not human or reached <= most + TOLERANCE)
                images.append(stage.pool * (end if last else reached))
            if last:
                break
    return Plan(tuple(labelled), tuple(human), auto, open_end)


def _share_of(value: Share, option: str) -> float:
    """The largest share that a value may turn out to be: itself, or the whole pool for `auto`."""
    if isinstance(value, str) and value != AUTO:
        raise InputError(f"{option} {value}: expected a share of the pool, 0 to 1, or auto")
    return 1.0 if isinstance(value, str) else value


def fractions(pool: int, start: Share, query: Share, stop: Share) -> tuple[float, float]:
    """The shares that the start set and a query have of a training pool of `pool` images.

    `auto` is 0.05 for both, as in the paper, if that is at least ten images. In a smaller pool the start set
    has ten images, and the queries share what remains up to `stop` equally, with at least ten images each. If
    less than ten images remain, the start set takes them, too.
    """
    least, stop = LEAST_IMAGES / pool, _share_of(stop, "--stop-fraction")
    if not isinstance(start, str):
        first = start
    else:
        first = min(stop, max(LEAST_SHARE, least))
        first = stop if stop - first < least - TOLERANCE else first
    if not isinstance(query, str):
        return first, query
    if least <= LEAST_SHARE:
        return first, LEAST_SHARE
    queries = max(1, math.floor((stop - first) / least + TOLERANCE))
    return first, (stop - first) / queries or stop


def takes_over(trials: Sequence[float | None]) -> bool:
    """True if the model draws from the next query on (`--human-budget auto`).

    This is so once the last two trials are no better than the best one before them. (The paper leaves the
    choice of the change point to future work, App. B.)

    Args:
        trials: for each query that people answered, the Dice between the maps that the model predicted before
            and those that people drew; None if there was nothing to compare.
    """
    known = [dice for dice in trials if dice is not None]
    return len(known) > PATIENCE and max(known[-PATIENCE:]) <= max(known[:-PATIENCE])


def _count(pool: int, fraction: float) -> int:
    """The number of images in a fraction of the pool. Halves are rounded up, despite errors of rounding."""
    return math.floor(pool * fraction + 0.5 + TOLERANCE)
