"""What trackers have in common that send numbers and pictures to another program."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from sal_fast.errors import InputError
from sal_fast.experiment import sheet
from sal_fast.experiment.loading import Run
from sal_fast.experiment.record import Round
from sal_fast.experiment.sheet import Pixels
from sal_fast.train import Epoch

PLACES = ("model", "round", "epoch")  # fields of `Epoch` that say whose numbers the others are

log = logging.getLogger(__name__)


class Numbers:
    """A tracker that sends everything in a round's line, a sheet of its query, and the numbers of each epoch.

    A subclass says how: `begin`, `send`, `show` and `finish`. Rounds are counted from 0. The epochs of all
    rounds are counted in one sequence, so that a curve goes on from round to round. It names its `library`,
    the program's `title` and our `extra` that installs it.

    Raises InputError if the library is not installed.
    """

    library: str
    title: str
    extra: str

    def __init__(self) -> None:
        if find_spec(self.library) is None:
            raise InputError(
                f'--tracker {self.extra} needs {self.title}: pip install "sal-fast[{self.extra}]"'
            )
        self._begun = False

    def __call__(self, run: Run, last: Round) -> None:
        self._begin(run)
        self.send("round", last.round, dict(flat(last)))
        try:
            made = sheet.of_query(run, last.round)
        except InputError as error:  # a picture that cannot be shown must not end a run
            log.warning("the sheet of query %d is left out: %s", last.round + 1, error)
            return
        if made is not None:
            self.show("query with generated maps" if made.maps else "query", last.round, made.pixels)

    def epoch(self, run: Run, one: Epoch) -> None:
        """Send the numbers of an epoch."""
        self._begin(run)
        step = one.round * run.config.epochs + one.epoch
        numbers = {f"{one.model}/{name}": value for name, value in flat(one) if name not in PLACES}
        self.send("epoch", step, numbers)

    def close(self) -> None:
        """Write what is not written yet. The tracker may be called again after it."""
        if self._begun:
            self.finish()
        self._begun = False

    def _begin(self, run: Run) -> None:
        if not self._begun:
            self.begin(run)
        self._begun = True

    # --- for a subclass ------------------------------------------------------------------------------------

    def begin(self, run: Run) -> None:
        """Open whatever the numbers go to, before any is sent."""
        raise NotImplementedError

    def send(self, axis: str, step: int, numbers: Mapping[str, float]) -> None:
        """Send some numbers of one step along an axis, `round` or `epoch`."""
        raise NotImplementedError

    def show(self, name: str, step: int, pixels: Pixels) -> None:
        """Send a picture of a round, uint8 [H, W, 3]."""
        raise NotImplementedError

    def finish(self) -> None:
        """Close it."""
        raise NotImplementedError


def flat(record: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a dataclass, a dictionary or a list by their places, such as `timings/train`.

    Texts and values that are None are left out. True is 1.
    """
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        record = {one.name: getattr(record, one.name) for one in dataclasses.fields(record)}
    if isinstance(record, list | tuple):
        record = dict(enumerate(record))
    if isinstance(record, Mapping):
        for name, value in record.items():
            yield from flat(value, f"{place}/{name}" if place else str(name))
    elif isinstance(record, int | float):
        yield place, float(record)
