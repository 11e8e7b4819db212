"""Trackers, which are told of every finished round. `Table` is the default: the table on the screen."""

import logging
from textwrap import fill

import numpy as np
from scipy.optimize import nnls

from sal_fast._util.progress import duration
from sal_fast.experiment.answers.turns import Turns
from sal_fast.experiment.loading import Run
from sal_fast.experiment.record import Round

# acc: accuracy, bal: balanced accuracy, F1: macro F1, rand: the Dice of a random map, hits: pointing game.
HEADER = "round labels human made empty  acc  bal   F1 Dice rand  IoU hits   sec left"
WIDTH, BELOW = 79, " " * 6  # of a note below a line


class Table:
    """Print a line of the table after each round, with an estimate of the time that is left.

    A note below a line says why its figures mean little. It is printed when it is new.
    """

    def __init__(self) -> None:
        self._begun = False
        self._said: list[str] = []

    def __call__(self, run: Run, last: Round) -> None:
        if not self._begun:
            print(HEADER)
            self._begun = True
        print(row(run, last), flush=True)
        doubts = run.doubts(last)
        for sentence in doubts:
            if sentence not in self._said:
                print(fill(sentence, WIDTH, initial_indent=BELOW, subsequent_indent=BELOW), flush=True)
        self._said = doubts


def log(run: Run, last: Round) -> None:
    """Write a record of each round to the logger `sal_fast`."""
    dice = "none" if last.dice is None else f"{last.dice:.3f}"
    logging.getLogger(__name__).info(
        "%s: round %d of %d, %d labelled, accuracy %.3f, Dice %s, %.1f s",
        run.path, last.round + 1, run.plan.rounds, last.labelled, last.accuracy, dice, last.seconds,
    )  # fmt: skip


def row(run: Run, last: Round) -> str:
    """The table's line of a round. It counts rounds from 1, as the progress bars do."""
    figures = last.accuracy, last.balanced_accuracy, last.macro_f1
    maps = last.dice, last.dice_floor, last.iou, last.pointing
    shown = [share(value) for value in (*figures, *maps)]
    left = seconds_left(run)
    return (
        f"{last.round + 1:>2}/{run.plan.rounds:<2} {last.labelled:>6} {last.human_maps:>5} "
        f"{last.generated_maps:>4} {last.empty_maps:>5} {' '.join(shown)} "
        f"{last.seconds:>5.1f} {duration(left) if left else '-'}"
    )


def share(value: float | None) -> str:
    """A figure from 0 to 1 in four columns: .833, 1.00, or a dash if there is none."""
    if value is None:
        return "   -"
    return "1.00" if value >= 0.9995 else f"{value:.3f}"[1:]


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
