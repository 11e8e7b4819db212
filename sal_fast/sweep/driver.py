"""The driver: hands runs to Ray, in an order that trains shared rounds once, until all are done."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sal_fast
from sal_fast._util.files import read_json, write_json
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.experiment.record import RunFolder
from sal_fast.sweep.cluster import Cluster, Crashed, Lost
from sal_fast.sweep.plan import Planned, Rates, work
from sal_fast.sweep.worker import News, Task, version

TICK = 0.5  # seconds between looks at the run folders
AGAIN = 5.0  # seconds until a run whose folder is in use is tried again

State = Literal["waiting", "running", "done", "failed"]


@dataclass
class Progress:
    """Where a run stands. `rounds`: finished ones, as its folder has them; `note`: for people."""

    planned: Planned
    place: int
    state: State = "waiting"
    handed_out: bool = False
    rounds: int = 0
    lost: int = 0  # workers since the last finished round
    rounds_at_start: int = 0
    not_before: float = 0.0
    note: str = ""

    @property
    def name(self) -> str:
        return self.planned.run.name

    @property
    def config(self) -> Config:
        return self.planned.config

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.config.run_folder)

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed")


class Driver:
    """The runs of a sweep and what has become of them."""

    def __init__(self, planned: Sequence[Planned], out: Path, retries: int) -> None:
        self.out, self.retries = out, retries
        self.runs = {one.run.name: Progress(one, place) for place, one in enumerate(planned)}
        self.rates = Rates()
        self.slots = 1
        self._sizes: dict[str, int] = {}

    @property
    def over(self) -> bool:
        return all(run.over for run in self.runs.values())

    def look(self) -> None:
        """What the folders say; InputError where one holds another configuration's run, or is damaged."""
        for run in self.runs.values():
            run.folder.check(run.config.options())
            self._count(run)
            if run.folder.finished():
                run.state = "done"

    def go(self, cluster: Cluster, show: Callable[[Driver], None]) -> None:
        """Until every run is done or has failed."""
        show(self)
        while not self.over:
            self.slots = cluster.slots
            for run in self._next():
                cluster.start(run.name, self._task(run, cluster))
                run.handed_out = True
            happened = cluster.news(TICK)
            if not happened:
                time.sleep(0.05 if any(run.handed_out for run in self.runs.values()) else TICK)
            for run in self.runs.values():
                if not run.over:
                    self._count(run)
            for name, said in happened:
                self._take(self.runs[name], said)
            show(self)

    # --- who is next -------------------------------------------------------------------------------------

    def _next(self) -> list[Progress]:
        """Those that may start now; first whose rounds most others wait for."""
        now = time.monotonic()
        ready = [
            run
            for run in self.runs.values()
            if run.state == "waiting"
            and not run.handed_out
            and run.not_before <= now
            and self._may_start(run)
            and not self._holds_still(run)
        ]
        return sorted(ready, key=lambda run: -len(run.planned.shares))

    def _may_start(self, run: Progress) -> bool:
        """Whether the rounds that it shares with another are there to copy, or none are to come."""
        source = self._source(run)
        return source is None or self._ready(*source)

    def _source(self, run: Progress) -> tuple[Progress, int] | None:
        """The run to take rounds from, and how many: the most that are there or will be."""
        if run.rounds:
            return None
        best: tuple[int, bool, int] | None = None
        chosen = None
        for name, count in run.planned.shares.items():
            other = self.runs[name]
            ready = self._ready(other, count)
            comes = other.place < run.place and other.state != "failed" and not self._passed(other, count)
            if (ready or comes) and (best is None or (count, ready, -other.place) > best):
                best, chosen = (count, ready, -other.place), (other, count)
        return chosen

    def _ready(self, other: Progress, count: int) -> bool:
        if count >= other.planned.plan.rounds:  # all of it, with its last weights
            return other.state == "done"
        if other.config.warm_start:  # with the weights of the last of them
            return other.rounds == count and not other.handed_out
        return other.rounds >= count

    def _passed(self, other: Progress, count: int) -> bool:
        """Whether the weights that a warm start would need are gone."""
        return other.config.warm_start and count < other.planned.plan.rounds and other.rounds > count

    def _stops(self, run: Progress) -> list[int]:
        """With --warm-start: after which rounds others still have to copy this run's weights."""
        if not run.config.warm_start:
            return []
        stops = []
        for other in map(self.runs.__getitem__, run.planned.shares):
            source = None if other.over else self._source(other)
            if source is not None and source[0] is run and source[1] < run.planned.plan.rounds:
                stops.append(source[1])
        return stops

    def _holds_still(self, run: Progress) -> bool:
        return run.rounds in self._stops(run)

    def _task(self, run: Progress, cluster: Cluster) -> Task:
        source = self._source(run)
        run.rounds_at_start, run.note = run.rounds, ""
        return Task(
            run.config,
            cluster.cpus_per_run,
            cluster.gpus_per_run > 0,
            str(self.log(run)),
            version(),
            None if source is None else (source[0].config, source[1]),
            min(self._stops(run), default=None),
        )

    def log(self, run: Progress) -> Path:
        return self.out / "logs" / f"{run.name}.txt"

    # --- what has happened -------------------------------------------------------------------------------

    def _take(self, run: Progress, said: News | Lost | Crashed) -> None:
        if isinstance(said, News) and said.state == "running":
            run.state, run.note = "running", said.text
            return
        run.handed_out, run.state, run.note = False, "waiting", ""
        if isinstance(said, Lost):
            run.lost = 1 if run.rounds > run.rounds_at_start else run.lost + 1
            run.note = f"again: {said}"
            if run.lost > self.retries:
                self._fail(
                    run, f"{run.lost} workers lost without a finished round: {said} (see {self.log(run)})"
                )
        elif isinstance(said, Crashed):
            self._fail(run, f"a worker cannot run it: {said}; every node needs this sal-fast")
        elif said.state == "failed":
            self._fail(run, said.text)
        elif said.state == "in use":
            run.not_before, run.note = time.monotonic() + AGAIN, "in use by another process"
        elif said.state == "finished":
            self._finish(run)

    def _finish(self, run: Progress) -> None:
        for _ in range(50):  # a network's file system may take a moment to show it
            if run.folder.summary_json.exists():
                self._count(run)
                run.state = "done"
                return
            time.sleep(0.1)
        self._fail(
            run, f"finished on another node, and its folder is not seen here: --out {self.out} is not shared"
        )

    def _fail(self, run: Progress, reason: str) -> None:
        run.state, run.note = "failed", reason

    def _count(self, run: Progress) -> None:
        """Finished rounds; a line is there whole or not at all."""
        path = run.folder.path / "rounds.jsonl"
        try:
            if self._sizes.get(run.name) == path.stat().st_size:
                return
            lines = path.read_bytes().splitlines(keepends=True)
            rows = [json.loads(line) for line in lines if line.endswith(b"\n")]
        except (OSError, ValueError):  # not there yet; what is damaged, the run itself says
            return
        self._sizes[run.name] = sum(map(len, lines))
        self.rates.add(run.config, run.planned.plan, rows[run.rounds :])
        run.rounds = len(rows)

    # --- what is left ------------------------------------------------------------------------------------

    def seconds_left(self) -> float | None:
        """From the seconds of finished rounds; None where there are none yet."""
        total = longest = 0.0
        for run in self.runs.values():
            if run.over:
                continue
            source = self._source(run)
            first = run.rounds if source is None else source[1]
            amount = work(run.config, run.planned.plan, first)
            seconds = self.rates.seconds(run.config, amount, rough=True)
            if seconds is None:
                return None
            total, longest = total + seconds, max(longest, seconds)
        return max(total / self.slots, longest)


@contextmanager
def held(out: Path, name: str, text: str) -> Iterator[None]:
    """Hold the sweep's folder; a second driver in it would only wait. Keeps the grid beside the runs."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out} cannot be made: {error.strerror}; choose another") from None
    if (out / "run.json").exists():
        raise InputError(f"--out {out} is one run's folder; name a folder for many runs")
    with open(out / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"--out {out} is in use by another sweep; wait for it, or choose another"
            ) from None
        write_json(out / "sweep.json", {"name": name, "sal_fast": sal_fast.__version__, "grid": text})
        yield


def summaries(driver: Driver) -> dict[str, dict[str, object]]:
    """summary.json of the runs that are done."""
    return {
        run.name: read_json(run.folder.summary_json) for run in driver.runs.values() if run.state == "done"
    }
