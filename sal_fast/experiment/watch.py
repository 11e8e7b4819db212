"""Trackers, which are told of every finished round. `Table` is the default: the table on the screen."""

import logging

import numpy as np
from scipy.optimize import nnls

from sal_fast._util.progress import duration
from sal_fast.experiment.answers.turns import Turns
from sal_fast.experiment.loading import Run
from sal_fast.experiment.record import Round

HEADER = "round labelled human generated empty accuracy  dice floor seconds left"


class Table:
    """Print a line of the table after each round, with an estimate of the time that is left."""

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, run: Run, last: Round) -> None:
        if not self._begun:
            print(HEADER)
            self._begun = True
        print(row(run, last), flush=True)


def log(run: Run, last: Round) -> None:
    """Write a record of each round to the logger `sal_fast`."""
    dice = "none" if last.dice is None else f"{last.dice:.3f}"
    logging.getLogger(__name__).info(
        "%s: round %d of %d, %d labelled, accuracy %.3f, Dice %s, %.1f s",
        run.path, last.round + 1, run.plan.rounds, last.labelled, last.accuracy, dice, last.seconds,
    )  # fmt: skip


def row(run: Run, last: Round) -> str:
    """The table's line of a round. It counts rounds from 1, as the progress bars do."""
    dice, floor = ("    -" if value is None else f"{value:.3f}" for value in (last.dice, last.dice_floor))
    left = seconds_left(run)
    return (
        f"{last.round + 1:>2}/{run.plan.rounds:<2} {last.labelled:>8} {last.human_maps:>5} "
        f"{last.generated_maps:>9} {last.empty_maps:>5} {last.accuracy:>8.3f} {dice} {floor} "
        f"{last.seconds:>7.1f} {duration(left) if left else '-'}"
    )


def seconds_left(run: Run) -> float:
    """An estimate of the seconds that the rounds to come take, or with `--stop-fraction auto` may take.

    A round is taken to need `fixed + each * work` seconds, neither of them negative: the line that fits the
    last five rounds best. After the first round `fixed` is 0, so the estimate is then too high rather than
    too low.
    """
    if run.rounds[-1].stopped:
        return 0.0
    turns, trials = Turns.of(run.config, run.plan), [one.trial_dice for one in run.rounds]
    recent = run.rounds[-5:]
    work = np.array([turns.work(one.round, trials) for one in recent], dtype=float)
    seconds = np.array([one.seconds for one in recent])
    # Equal rounds cannot tell the two parts from each other.
    fixed = np.full_like(work, float(np.ptp(work) > 0))
    (each, once), _ = nnls(np.stack([work, fixed], axis=1), seconds)
    later = range(run.rounds[-1].round + 1, run.plan.rounds)
    return sum(float(once + each * turns.work(number, trials)) for number in later)
