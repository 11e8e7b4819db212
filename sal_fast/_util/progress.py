"""Progress with an estimate, on stderr; a terminal sees a bar, a log file one line when it ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_shown = False  # whether a bar is on the terminal, or none is to be


@contextmanager
def hidden() -> Iterator[None]:
    """Show no progress: another process does."""
    global _shown
    before, _shown = _shown, True
    try:
        yield
    finally:
        _shown = before


@contextmanager
def bar(description: str, total: int, *, log: bool = True) -> Iterator[Callable[..., None]]:
    """Yield a function that advances the bar, by one or by what it is given.

    `log=False`: no line where there is no terminal. A terminal shows one bar at a time: one that is opened
    inside another is not seen.
    """
    global _shown
    if _shown:
        yield lambda by=1: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        start = time.perf_counter()
        yield lambda by=1: None
        if log:
            print(f"{description}: {total} in {time.perf_counter() - start:.1f} s", file=sys.stderr)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    _shown = True
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(description, total=total)
            yield lambda by=1: progress.advance(task, by)
    finally:
        _shown = False


def duration(seconds: float) -> str:
    """`95` -> `1 min 35 s`: two units at most."""
    whole = round(seconds)
    for unit, name, below, below_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // below} {below_name}"
    return f"{whole} s"
