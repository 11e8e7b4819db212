"""`--tracker csv`: rounds.csv and epochs.csv in the run folder, for a spreadsheet or pandas."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sal_fast._util.files import write_bytes
from sal_fast.experiment.loading import Run
from sal_fast.experiment.record import Round
from sal_fast.experiment.trackers.base import PLACES, flat
from sal_fast.train import Epoch

ROUNDS, EPOCHS = "rounds.csv", "epochs.csv"


class Csv:
    """Writes a line for each round and for each epoch of each model.

    Both files are whole at any time. A round that was interrupted and runs again takes the place of its first
    attempt, and so does an epoch.
    """

    def __init__(self) -> None:
        self._epochs: list[dict[str, Any]] | None = None

    def __call__(self, run: Run, last: Round) -> None:
        _write(run.path / ROUNDS, [dict(flat(one)) for one in run.rounds])

    def epoch(self, run: Run, one: Epoch) -> None:
        """Add the line of an epoch."""
        if self._epochs is None:
            finished = len(run.rounds)
            self._epochs = [row for row in _read(run.path / EPOCHS) if int(row["round"]) < finished]
        row = asdict(one)
        self._epochs = [*(other for other in self._epochs if _place(other) != _place(row)), row]
        _write(run.path / EPOCHS, self._epochs)


def _place(row: dict[str, Any]) -> tuple[str, ...]:
    """The model, the round and the epoch of a line, which a file may hold as text."""
    return tuple(str(row[name]) for name in PLACES)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows under all the names that any of them has; what a row does not have stays empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
