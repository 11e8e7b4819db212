"""The rule by which a run finds out itself when labelling ends (`--stop-fraction auto`).

After each round two questions are asked, without any label beyond those that the run has anyway:

* Have the predictions on the pool become stable? A stop set is drawn from the pool once. Cohen's kappa says
  how far the models of this round and of the last one agree on its images, beyond chance.
* Would more labels help? A power law is fitted to the validation errors so far, and gives the gain in
  accuracy that labelling the whole pool is expected to bring.

Labelling ends when the mean of the last WINDOW kappas is at least AGREE and the expected gain is at most
GAIN. docs/method.md has the sources.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from sal_fast import seeds
from sal_fast._util import stats
from sal_fast.data.store import Store
from sal_fast.distributed import Ranks
from sal_fast.experiment.record import RunFolder
from sal_fast.models import Classifier
from sal_fast.train import score

MOST = 2000  # images of the stop set
LEAST = 30  # images without a label that kappa needs
WINDOW = 3  # kappas whose mean has to reach AGREE
AGREE = 0.99
GAIN = 0.01  # accuracy, from 0 to 1
FEWEST = 4  # rounds that the fit of three numbers needs
EXPONENTS = np.arange(1, 41) / 20  # of the power law: 0.05 to 2
FILE = "stop_set.csv"

log = logging.getLogger(__name__)


def kappa(one: Sequence[int], other: Sequence[int]) -> float | None:
    """Cohen's kappa of two lists of predicted classes (`stats.kappa`).

    Returns None for fewer than LEAST images, and if both lists name one class alone.
    """
    return stats.kappa(one, other) if len(one) >= LEAST else None


def expected_gain(labelled: Sequence[int], accuracy: Sequence[float], pool: int) -> float | None:
    """The gain in accuracy that is expected from labelling the whole pool, from 0 to 1.

    The error is taken to follow `c + a n^-b` with n labelled images, `a >= 0` and `c >= 0`. For each b of
    EXPONENTS, a and c are the best in least squares, and the b with the least residual is taken. Source:
    Figueroa et al. 2012.

    Returns None for fewer than FEWEST rounds.
    """
    if len(labelled) < FEWEST:
        return None
    n, error = np.asarray(labelled, dtype=float), 1 - np.asarray(accuracy, dtype=float)
    fits = []
    for exponent in EXPONENTS:
        falling = (n / n[-1]) ** -exponent
        (_, height), residual = nnls(np.stack([np.ones_like(n), falling], axis=1), error)
        fits.append((residual, height * (1 - (pool / n[-1]) ** -exponent)))
    return float(min(fits)[1])


def ends(kappas: Sequence[float | None], gain: float | None) -> bool:
    """True if labelling ends.

    Args:
        kappas: the agreement of each round with the one before, up to now; None if it is not known.
        gain: the expected gain; None if it is not known.
    """
    last = [one for one in kappas[-WINDOW:] if one is not None]
    stable = len(last) == WINDOW and float(np.mean(last)) >= AGREE
    return stable and gain is not None and gain <= GAIN


class Stopping:
    """Asks after each round of a run if labelling ends. Every rank takes part, and the first one decides.

    rows: int64, the stop set, as rows of the store. It depends on the seed alone.
    """

    def __init__(self, seed: int, store: Store, folder: RunFolder, ranks: Ranks) -> None:
        self.store, self.folder, self.ranks = store, folder, ranks
        pool = store.rows("train")
        drawn = seeds.stream(seed, "stop set").permutation(len(pool))[:MOST]
        self.rows = pool[torch.from_numpy(np.sort(drawn)).to(pool.device)]

    def judge(
        self,
        model: Classifier,
        labelled: Tensor,
        val_accuracy: float,
        aside: Path | None,
        lines: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Return `stop_kappa`, `expected_gain` and `stopped` (the rule holds) for the round's line.

        Args:
            model: the accuracy model of the round.
            labelled: int64, the rows that it was trained on.
            val_accuracy: its accuracy on the validation set.
            aside: the folder of the round, which keeps what the model predicts; None on other ranks.
            lines: those of the rounds before; they are empty on other ranks.
        """
        logits, _ = score(model, self.store, self.rows, features=False, ranks=self.ranks)
        told: dict[str, Any] = {}
        if aside is not None:
            predicted = self._named(logits)
            write_predictions(aside / FILE, predicted)
            known = {self.store.table.ids[row] for row in labelled.tolist()}
            told = self._told(predicted, known, val_accuracy, lines)
        found: dict[str, Any] = json.loads(self.ranks.text(json.dumps(told)))
        return found

    def _named(self, logits: Tensor) -> dict[str, int]:
        """The predicted class of each image, by id."""
        ids = (self.store.table.ids[row] for row in self.rows.tolist())
        return dict(zip(ids, logits.argmax(dim=1).tolist(), strict=True))

    def _told(
        self,
        predicted: Mapping[str, int],
        known: set[str],
        val_accuracy: float,
        lines: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        before = read_predictions(self.folder.round(len(lines) - 1) / FILE) if lines else {}
        rest = [name for name in predicted if name in before and name not in known]
        agreement = kappa([predicted[name] for name in rest], [before[name] for name in rest])
        counts = [*(line["labelled"] for line in lines), len(known)]
        accuracies = [*(line["val_accuracy"] for line in lines), val_accuracy]
        gain = expected_gain(counts, accuracies, len(self.store.rows("train")))
        stopped = ends([*(line.get("stop_kappa") for line in lines), agreement], gain)
        if stopped:
            log.info(
                "labelling ends with %d images (--stop-fraction auto): predictions on the pool are stable, "
                "and labelling the rest is expected to gain %.3f of accuracy",
                len(known), gain,
            )  # fmt: skip
        return {"stop_kappa": agreement, "expected_gain": gain, "stopped": stopped}


def write_predictions(path: Path, predicted: Mapping[str, int]) -> None:
    """Write the number of the predicted class of each image: id, class."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "class"))
        writer.writerows(predicted.items())


def read_predictions(path: Path) -> dict[str, int]:
    """Read what `write_predictions` wrote; {} if there is no file."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return {row["id"]: int(row["class"]) for row in csv.DictReader(file)}
    except FileNotFoundError:
        return {}
