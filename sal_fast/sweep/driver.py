"""The driver: it hands runs to Ray, so that shared rounds are trained once, until all runs are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sal_fast
from sal_fast._util.files import write_json
from sal_fast._util.locks import locked
from sal_fast.errors import InputError
from sal_fast.experiment.record import Round, RunFolder
from sal_fast.sweep.cluster import Cluster
from sal_fast.sweep.plan import PlannedRun, Rates, images_trained
from sal_fast.sweep.worker import News, Task, version

TICK = 0.5  # seconds between looks at the run folders
AGAIN = 10.0  # seconds until a run whose folder is in use is tried again

State = Literal["waiting", "running", "done", "failed"]


@dataclass
class Progress(PlannedRun):
    """A run, and where it stands.

    place: its position in the grid. rounds: how many are finished, by its folder. lost: workers that were
    lost since the last finished round. not_before: the time (of time.monotonic) until which it waits. note: a
    remark for the screen.
    """

    place: int = 0
    state: State = "waiting"
    handed_out: bool = False
    rounds: int = 0
    lost: int = 0
    not_before: float = 0.0
    note: str = ""

    @property
    def total(self) -> int:
        """How many rounds the run has."""
        return self.plan.rounds

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.config.run_folder)

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed")


class Driver:
    """The runs of a sweep, and what has become of them.

    retries: how often a run whose worker was lost is started again without a new finished round.
    """

    def __init__(self, planned: Sequence[PlannedRun], out: Path, retries: int) -> None:
        self.out, self.retries = out, retries
        self.runs = {one.name: Progress(**vars(one), place=place) for place, one in enumerate(planned)}
        self.rates = Rates()
        self.slots = 1

    @property
    def over(self) -> bool:
        return all(run.over for run in self.runs.values())

    def read_folders(self) -> None:
        """See which rounds are finished already.

        Raises InputError if a folder holds the run of another configuration, or is damaged.
        """
        for run in self.runs.values():
            run.folder.check(run.config.options())
            self._count_rounds(run)
            if run.folder.finished():
                run.state = "done"

    def make_all(self, cluster: Cluster, show: Callable[[Driver], None]) -> None:
        """Hand out runs until every one is done or has failed; `show` is called whenever time has passed."""
        show(self)
        while not self.over:
            self.slots = cluster.count()
            for run in self._next():
                cluster.start(run.name, self._task(run, cluster))
                run.handed_out = True
            happened = cluster.news(TICK)
            handed_out = [run for run in self.runs.values() if run.handed_out]
            if not happened:
                time.sleep(0.05 if handed_out else TICK)
            for run in handed_out:
                self._count_rounds(run)
            for name, event in happened:
                self._take(self.runs[name], event)
            show(self)

    # --- who is next -------------------------------------------------------------------------------------

    def _next(self) -> list[Progress]:
        """The runs that may start now; those with whose rounds most others begin come first."""
        now = time.monotonic()
        ready = [
            run
            for run in self.runs.values()
            if run.state == "waiting"
            and not run.handed_out
            and run.not_before <= now
            and ((source := self._source(run)) is None or self._ready(*source))
            and run.rounds not in self._stops(run)  # else it waits until others have copied its weights
        ]
        return sorted(ready, key=lambda run: -len(run.shares))

    def _source(self, run: Progress) -> tuple[Progress, int] | None:
        """The run to copy rounds from, and how many: the most that are there or will be."""
        if run.rounds:
            return None
        others = [(self.runs[name], count) for name, count in run.shares.items()]
        there = [one for one in others if self._ready(*one) or self._comes(*one, before=run.place)]
        return max(there, key=lambda one: (one[1], self._ready(*one), -one[0].place), default=None)

    def _ready(self, other: Progress, count: int) -> bool:
        if count >= other.total:  # all of it, with its last weights
            return other.state == "done"
        if other.config.warm_start:  # with the weights of the last of them
            return other.rounds == count and not other.handed_out
        return other.rounds >= count

    def _comes(self, other: Progress, count: int, before: int) -> bool:
        """True for a run before a place of the grid that will have the rounds, and a warm start's weights."""
        passed = other.config.warm_start and count < other.total and other.rounds > count
        return other.place < before and other.state != "failed" and not passed

    def _stops(self, run: Progress) -> list[int]:
        """With --warm-start: the rounds after which others still have to copy this run's weights."""
        if not run.config.warm_start:
            return []
        others = (self.runs[name] for name in run.shares)
        sources = (self._source(other) for other in others if not other.over)
        return [count for source, count in filter(None, sources) if source is run and count < run.total]

    def _task(self, run: Progress, cluster: Cluster) -> Task:
        source = self._source(run)
        run.note = ""
        return Task(
            run.config,
            cluster.slot.cpus,
            cluster.slot.gpus > 0,
            str(self.log(run)),
            version(),
            None if source is None else (source[0].config, source[1]),
            min(self._stops(run), default=None),
        )

    def log(self, run: Progress) -> Path:
        """The file that holds what the run has said."""
        return self.out / "logs" / f"{run.name}.txt"

    # --- what has happened -------------------------------------------------------------------------------

    def _take(self, run: Progress, event: News) -> None:
        if event.state == "running":
            run.state, run.note = "running", event.text
            return
        run.handed_out, run.state, run.note = False, "waiting", ""
        if event.state == "lost":
            run.lost, run.note = run.lost + 1, f"again: {event.text}"
            if run.lost > self.retries:
                lost = f"{run.lost} workers lost without a finished round"
                run.state, run.note = "failed", f"{lost}: {event.text} (see {self.log(run)})"
        elif event.state == "in use":
            run.not_before, run.note = time.monotonic() + AGAIN, "in use by another process"
        elif event.state == "failed":
            run.state, run.note = "failed", event.text
        elif event.state == "finished":
            self._finish(run)

    def _finish(self, run: Progress) -> None:
        for _ in range(50):  # a network's file system may take a moment to show it
            if run.folder.summary_json.exists():
                self._count_rounds(run)
                run.state = "done"
                return
            time.sleep(0.1)
        unseen = f"finished on another node, and its folder is not seen here: --out {self.out} is not shared"
        run.state, run.note = "failed", unseen

    def _count_rounds(self, run: Progress) -> None:
        """Count the finished rounds, and learn from the new ones how long they take."""
        with suppress(InputError):  # the run itself says what is damaged
            lines = run.folder.rounds(mend=False)
            new = lines[run.rounds :]
            self.rates.add(run.config, run.plan, map(Round.of, new))
            run.rounds, run.lost = len(lines), 0 if new else run.lost

    # --- what is left ------------------------------------------------------------------------------------

    def seconds_left(self) -> float | None:
        """An estimate from the finished rounds; None if there are none yet."""
        each = []
        for run in self.runs.values():
            if not run.over:
                source = self._source(run)
                rounds = range(run.rounds if source is None else source[1], run.total)
                images = images_trained(run.config, run.plan, rounds)
                each.append(self.rates.seconds(run.config, images, rough=True))
        known = [seconds for seconds in each if seconds is not None]
        return None if len(known) < len(each) else max([0.0, sum(known) / self.slots, *known])


@contextmanager
def holding(out: Path, name: str, text: str) -> Iterator[None]:
    """Hold the sweep's folder, in which a second driver would only wait, and keep the grid beside the runs.

    Raises InputError if another sweep holds it, or if it cannot be the folder of many runs.
    """
    if (out / "run.json").exists():
        raise InputError(f"--out {out} is one run's folder; name a folder for many runs")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out} cannot be made: {error.strerror}; choose another") from None
    with locked(out / ".lock", f"--out {out} is in use by another sweep; wait for it, or choose another"):
        write_json(out / "sweep.json", {"name": name, "sal_fast": sal_fast.__version__, "grid": text})
        yield
