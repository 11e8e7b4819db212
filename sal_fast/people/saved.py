"""The time that people saved: by giving classes alone after the hand-over, and by correcting a model's maps.

Both are differences of mean seconds between answers of two kinds. Their intervals are over answers. Nobody
drew by lot which answers are of which kind, so a difference may also come from the images or the people.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sal_fast._util.stats import interval
from sal_fast.people.answers import Answers, Kept

FEW = 10  # answers of a kind; the interval over fewer is too narrow
SEED = 0  # of the bootstrap, so that the same answers give the same interval


@dataclass(frozen=True)
class Saved:
    """The seconds that were saved: `(slow - quick) * answers`.

    answers: the number of answers of the quick kind. slow, quick: the mean seconds of an answer of each kind.
    slow_timed, quick_timed: how many answers these are means of. low, high: the 95 % interval of `seconds`;
    None if a kind has fewer than two answers with a time.
    """

    seconds: float
    low: float | None
    high: float | None
    answers: int
    slow: float
    quick: float
    slow_timed: int
    quick_timed: int

    @property
    def few(self) -> bool:
        """True if a kind has so few answers that the interval is too narrow."""
        return min(self.slow_timed, self.quick_timed) < FEW


def by_handing_over(answers: Sequence[Answers], first: int | None) -> Saved | None:
    """The time that was saved because people gave classes alone after the hand-over.

    It compares answers with a map, before the hand-over, with answers without one, after it. If several
    people answer for one image, each of their answers counts.

    Args:
        answers: those of each query, in order.
        first: the first query that asked for no maps; None if all of them asked.

    Returns None if either kind of answer has no times.
    """
    if first is None:
        return None
    before = [one for query in answers[:first] for one in query.own if one.mask is not None]
    after = [one for query in answers[first:] for one in query.own if one.mask is None]
    return saved(before, after)


def by_correcting(answers: Sequence[Answers]) -> Saved | None:
    """The time that was saved because people corrected or accepted a model's maps.

    It compares these answers with those whose map was drawn from nothing. Returns None if either kind of
    answer has no times.
    """
    kept = [one for query in answers for one in query.own]
    drawn = [one for one in kept if one.kind == "drawn"]
    corrected = [one for one in kept if one.kind in ("corrected", "accepted")]
    return saved(drawn, corrected)


def saved(slow: Sequence[Kept], quick: Sequence[Kept]) -> Saved | None:
    """The time that answers of a quick kind saved, compared with a slow kind; None if either has no times.

    Skipped images do not count.
    """
    count = sum(not one.skipped for one in quick)
    x, y = _seconds(slow), _seconds(quick)
    if not len(x) or not len(y):
        return None
    low = high = None
    if min(len(x), len(y)) > 1:
        ends = interval((x, y), _difference, np.random.default_rng(SEED))
        low, high = (round(count * end, 3) for end in ends)
    return Saved(
        seconds=round(count * float(x.mean() - y.mean()), 3),
        low=low,
        high=high,
        answers=count,
        slow=round(float(x.mean()), 3),
        quick=round(float(y.mean()), 3),
        slow_timed=len(x),
        quick_timed=len(y),
    )


def _difference(slow: np.ndarray, quick: np.ndarray, axis: int = -1) -> np.ndarray:
    difference: np.ndarray = slow.mean(axis=axis) - quick.mean(axis=axis)
    return difference


def _seconds(kept: Iterable[Kept]) -> np.ndarray:
    """The times of answers that gave a class, float64 [n]."""
    return np.array([one.seconds for one in kept if not one.skipped and one.seconds is not None], dtype=float)
