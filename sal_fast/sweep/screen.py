"""What a person sees of a sweep: a live table in a terminal, a line a change in a log, a table at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sal_fast._util.progress import duration
from sal_fast.sweep.driver import Driver, Progress

COLOURS = {"waiting": "dim", "running": "cyan", "done": "green", "failed": "red"}
ORDER = ("failed", "running", "waiting", "done")  # what is cut off first is what is over


@contextmanager
def shown() -> Iterator[Callable[[Driver], None]]:
    """A function that shows where a sweep stands, on stderr."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            yield lambda driver: live.update(_picture(driver, console.height), refresh=True)
        return
    last: dict[str, tuple[str, str]] = {}

    def say(driver: Driver) -> None:
        known = bool(last)
        for run in driver.runs.values():
            now = (run.state, run.note)
            if not known and run.state == "done":  # before this call
                last[run.name] = now
            if last.get(run.name, ("waiting", "")) != now:
                print(f"{headline(driver)}: {run.name} {_in_words(run)}", file=sys.stderr, flush=True)
            last[run.name] = now

    yield say


def headline(driver: Driver) -> str:
    """`3/8 done, 2 running, about 4 min left`."""
    states = [run.state for run in driver.runs.values()]
    parts = [f"{states.count('done')}/{len(states)} done"]
    parts += [f"{states.count(state)} {state}" for state in ("running", "failed") if state in states]
    left = driver.seconds_left()
    if left:
        parts.append(f"about {duration(left)} left")
    return ", ".join(parts)


def _in_words(run: Progress) -> str:
    words = {
        "waiting": "waits",
        "running": f"runs, {run.rounds} of {run.planned.plan.rounds} rounds finished",
        "done": "is done",
        "failed": "failed",
    }[run.state]
    return words + (f" ({run.note})" if run.note else "")


def _picture(driver: Driver, height: int) -> Group:
    table = Table("run", "state", "rounds", "", expand=False)
    runs = sorted(driver.runs.values(), key=lambda run: ORDER.index(run.state))
    room = max(3, height - 7)
    for run in runs[:room]:
        table.add_row(
            Text(run.name),
            Text(run.state, COLOURS[run.state]),
            f"{run.rounds}/{run.planned.plan.rounds}",
            Text(run.note, overflow="ellipsis", no_wrap=True),
        )
    more = [Text(f"and {len(runs) - room} more")] if len(runs) > room else []
    return Group(table, *more, Text(headline(driver)))


def final_table(driver: Driver, summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    """A line a run: its areas under the learning curves, or why there are none."""
    table = Table("run", "rounds", "AULC accuracy", "AULC Dice", "human maps", "time")
    for column in table.columns[1:]:
        column.justify = "right"
    for run in driver.runs.values():
        summary = summaries.get(run.name)
        if summary is None:
            table.add_row(Text(run.name), f"{run.rounds}/{run.planned.plan.rounds}", Text("failed", "red"))
            continue
        table.add_row(
            Text(run.name),
            str(summary["rounds"]),
            _three(summary["aulc_accuracy"]),
            _three(summary["aulc_dice"]),
            str(summary["human_maps"]),
            duration(summary["seconds"]),
        )
    return table


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
