"""The progress of long work: a bar on a terminal, or lines in the log without one."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EVERY = 30.0  # seconds between the lines that a log gets while something runs
OFTEN = 0.5  # seconds between two states in the file of progress
FILE = "SAL_FAST_PROGRESS"  # names a file that another program reads to show how far the work is
_log = logging.getLogger(__name__)


@dataclass
class _Bar:
    description: str
    total: int
    done: int = 0
    start: float = field(default_factory=time.perf_counter)

    def line(self, spent: float) -> str:
        """The state after `spent` seconds, with an estimate of the time that is left if there is one."""
        left = self.left(spent)
        estimate = "" if left is None else f", about {duration(left)} left"
        return f"{self.description}: {self.done} of {self.total}{estimate}"

    def left(self, spent: float) -> float | None:
        """An estimate of the seconds that are left after `spent` seconds; None before anything is done."""
        return round(spent / self.done * (self.total - self.done), 1) if self.done else None

    def write(self, file: Path, spent: float) -> None:
        """Write the state to a file that another program reads. Work goes on if that cannot be done."""
        aside = file.with_name(file.name + ".part")
        state = {"name": self.description, "done": self.done, "total": self.total}
        with suppress(OSError):
            aside.write_text(json.dumps(state | {"seconds_left": self.left(spent)}))
            aside.replace(file)


_open: _Bar | None = None  # the bar that is shown; bars that are opened inside it are not
_hidden = False
_beating = False


@contextmanager
def hidden() -> Iterator[None]:
    """Show no bars, and no log records below WARNING, inside the block: another process shows its own."""
    global _hidden
    package = logging.getLogger("sal_fast")
    before, level, _hidden = _hidden, package.level, True
    package.setLevel(logging.WARNING)
    try:
        yield
    finally:
        _hidden = before
        package.setLevel(level)


@contextmanager
def heartbeat() -> Iterator[None]:
    """Without a terminal, log a line every EVERY seconds inside the block.

    The line tells the state of the open bar, or that work goes on. A heartbeat inside another does nothing.
    """
    global _beating
    if _beating or _hidden or Console(stderr=True).is_terminal:
        yield
        return
    over, begin = threading.Event(), time.perf_counter()

    def beat() -> None:
        while not over.wait(EVERY):
            bar, now = _open, time.perf_counter()
            _log.info(bar.line(now - bar.start) if bar else f"still running after {duration(now - begin)}")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    _beating = True
    try:
        yield
    finally:
        _beating = False
        over.set()
        thread.join()


@contextmanager
def bar(description: str, total: int, *, log: bool = True) -> Iterator[Callable[..., None]]:
    """Show a bar of `total` steps, and yield a function that advances it by one step or by a given number.

    Without a terminal the log tells now and then how far the work is (`heartbeat`). With `log` it also tells
    how long it took. Only one bar is shown at a time: a bar that is opened inside another is not shown.
    """
    global _open
    if _open is not None or _hidden:
        yield lambda by=1: None
        return
    _open = shown = _Bar(description, total)
    try:
        with _on_terminal(shown) if Console(stderr=True).is_terminal else _in_log(shown, log) as advance:
            yield advance
    finally:
        _open = None


@contextmanager
def _on_terminal(shown: _Bar) -> Iterator[Callable[..., None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(shown.description, total=shown.total)
        yield lambda by=1: progress.advance(task, by)


@contextmanager
def _in_log(shown: _Bar, log: bool) -> Iterator[Callable[..., None]]:
    file, told = os.environ.get(FILE), 0.0

    def advance(by: int = 1) -> None:
        nonlocal told
        shown.done += by
        now = time.perf_counter()
        if file and now - told >= OFTEN:
            told = now
            shown.write(Path(file), now - shown.start)

    with heartbeat():
        yield advance
    if file:
        Path(file).unlink(missing_ok=True)
    if log:
        _log.info(f"{shown.description}: {shown.total} in {time.perf_counter() - shown.start:.1f} s")


def duration(seconds: float) -> str:
    """A time in words with at most two units: 95 -> `1 min 35 s`."""
    whole = round(seconds)
    for unit, name, below, below_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // below} {below_name}"
    return f"{whole} s"
