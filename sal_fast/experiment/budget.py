"""How many images are labelled in each round, and which queries people annotate."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from sal_fast.errors import InputError

TOLERANCE = 1e-9  # fractions are sums of decimals


@dataclass(frozen=True)
class Plan:
    """labelled[r]: size of the labelled set in round r; human[r]: whether people draw query r's maps.

    Query 0 is the start set, query r is asked after round r - 1: labelled = round(P * min(stop, start + r *
    query)); the last query takes the remainder. Query r is human when start + r * query <= human_budget; the
    start set always is.
    """

    labelled: tuple[int, ...]
    human: tuple[bool, ...]

    @property
    def rounds(self) -> int:
        return len(self.labelled)

    def query_size(self, number: int) -> int:
        return self.labelled[number] - (self.labelled[number - 1] if number else 0)


def plan(pool: int, start: float, query: float, stop: float, human_budget: float) -> Plan:
    """The plan for a training pool of `pool` images; fractions are of that pool.

    Raises InputError for a fraction out of range, or one that is less than one image.
    """
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
    if not 0 <= human_budget <= 1:
        raise InputError(f"--human-budget {human_budget:g}: expected a share of the pool, 0 to 1")
    if human_budget > 0 and _count(pool, human_budget) < 1:
        raise InputError(f"--human-budget {human_budget:g} of {pool} training images is less than one image")
    labelled: list[int] = []
    human: list[bool] = []
    for step in itertools.count():
        reached = start + step * query
        last = reached >= stop - TOLERANCE
        count = _count(pool, stop if last else reached)
        if not labelled or count > labelled[-1]:  # a step of less than half an image asks for nothing
            labelled.append(count)
            human.append(not human or reached <= human_budget + TOLERANCE)
        if last:
            break
    return Plan(tuple(labelled), tuple(human))


def _count(pool: int, fraction: float) -> int:
    """Halves round up, whatever the last bit of the product says."""
    return math.floor(pool * fraction + 0.5 + TOLERANCE)
