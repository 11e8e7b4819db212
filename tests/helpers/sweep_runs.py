"""Grids of runs that take two seconds each, and what is the same however they were made."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
from experiment_runs import TINY, kept, rounds
from patience import PATIENCE

from sal_fast.experiment.config import Config
from sal_fast.sweep import driver, grid, plan, worker

# three rounds, of 5, 9 and 14 images; people draw the maps of the first two queries
SMALL: dict[str, Any] = {**TINY, "epochs": 1, "human_budget": 0.5}

Value = TypeVar("Value")


def toml(**options: Any) -> str:
    """A grid file of small runs. A list is an axis, and a dict an item with options of its own."""

    def spell(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list):
            return f"[{', '.join(map(spell, value))}]"
        if isinstance(value, dict):
            return f"{{ {', '.join(f'{name} = {spell(inner)}' for name, inner in value.items())} }}"
        return f'"{value}"' if isinstance(value, str | Path) else repr(value)

    return "".join(f"{name} = {spell(value)}\n" for name, value in {**SMALL, **options}.items())


def configs(out: Path, **options: Any) -> list[Config]:
    """The configurations of a grid of small runs."""
    return grid.parse_grid("small", "small.toml", toml(**options)).configs(out)


class Here:
    """A cluster that does one task after the other in this process. `lose`: how many workers it loses."""

    class slot:
        cpus, gpus = 1, 0.0

    def __init__(self, lose: dict[str, int] | None = None) -> None:
        self.tasks: list[tuple[str, worker.Task]] = []
        self.began: list[str] = []
        self.lose = lose or {}

    def count(self) -> int:
        return 1

    def start(self, name: str, task: worker.Task) -> None:
        self.tasks.append((name, task))

    def news(self, timeout: float) -> list[tuple[str, worker.News]]:
        if not self.tasks:
            return []
        name, task = self.tasks.pop(0)
        self.began.append(name)
        if self.lose.get(name, 0):
            self.lose[name] -= 1
            return [(name, worker.News("lost", "gone"))]
        return [(name, worker.outcome(task))]


def driven(found: list[Config], out: Path, here: Here | None = None, retries: int = 3) -> driver.Driver:
    """Make the runs in this process, and return the driver that did."""
    made = driver.Driver(plan.examine(found).planned, out, retries)
    made.read_folders()
    made.make_all(here or Here(), lambda driver: None)  # type: ignore[arg-type]
    return made


def start(*words: object, mark: str = "") -> subprocess.Popen[str]:
    """`sal-fast sweep ...` in a process of its own; `mark` is in its environment and its children's."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "sal_fast", "sweep", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "SWEEP_TEST": mark},
    )


def results(folder: Path) -> tuple[object, object]:
    """Everything in a run folder that must not depend on how the run was made."""
    return rounds(folder), kept(folder)


def _asked(question: Callable[[psutil.Process], Value]) -> Iterator[tuple[int, Value]]:
    """The answer of every living process that gives one."""
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process.pid, question(process)
        except psutil.Error:
            continue


def holders(out: Path) -> dict[int, Path]:
    """The processes that hold a run's folder: process -> folder."""
    found = {}
    for process, files in _asked(psutil.Process.open_files):
        for path in (Path(file.path) for file in files):
            if path.name == ".lock" and path.parent.parent == out:
                found[process] = path.parent
    return found


def marked(text: str) -> list[str]:
    """Command lines of the living processes, but for this one, with `text` in their environment."""
    told = _asked(lambda process: (process.environ(), process.cmdline()))
    return [
        " ".join(words)
        for process, (environment, words) in told
        if process != os.getpid() and text in environment.values()
    ]


def wait_for(condition: Any) -> Any:
    """The condition's value once it is true."""
    until = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return value
