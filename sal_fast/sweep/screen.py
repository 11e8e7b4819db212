"""What a person sees of a sweep: a live table on a terminal, lines in a log, and the table of results."""

import logging
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sal_fast._util.files import read_json
from sal_fast._util.progress import duration
from sal_fast.sweep.driver import Driver, Progress

# a terminal that is too low cuts off the last ones
COLOURS = {"failed": "red", "running": "cyan", "waiting": "dim", "done": "green"}
BESIDE_THE_ROWS = 7  # lines of the live table that are no rows
BESIDE_THE_NAME = 54  # columns of the table of results that are not the name's

log = logging.getLogger(__name__)


@contextmanager
def following(console: Console) -> Iterator[Callable[[Driver], None]]:
    """Yield a function that shows where a sweep stands: as a table on a terminal, else by log lines."""
    if not console.is_terminal:
        yield _Changes()
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:
        yield lambda driver: live.update(_picture(driver, console.height), refresh=True)


class _Changes:
    """Logs each run whose state or note has changed since the last call."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, str]] = {}

    def __call__(self, driver: Driver) -> None:
        first = not self._last
        for run in driver.runs.values():
            now = (run.state, run.note)
            done_before = first and run.state == "done"
            if not done_before and self._last.get(run.name, ("waiting", "")) != now:
                log.info("%s: %s %s", headline(driver), run.name, _in_words(run))
            self._last[run.name] = now


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
        "running": f"runs, {run.rounds} of {run.total} rounds finished",
        "done": "is done",
        "failed": "failed",
    }[run.state]
    return words + (f" ({run.note})" if run.note else "")


def _picture(driver: Driver, height: int) -> Group:
    table = Table("run", "state", "rounds", "", expand=False)
    runs = sorted(driver.runs.values(), key=lambda run: [*COLOURS].index(run.state))
    room = max(3, height - BESIDE_THE_ROWS)
    for run in runs[:room]:
        table.add_row(
            Text(run.name),
            Text(run.state, COLOURS[run.state]),
            f"{run.rounds}/{run.total}",
            Text(run.note, overflow="ellipsis", no_wrap=True),
        )
    more = [Text(f"and {len(runs) - room} more")] if len(runs) > room else []
    return Group(table, *more, Text(headline(driver)))


def results(driver: Driver, width: int) -> Table:
    """The table of results: one row for each run, with its areas under the learning curves, or `failed`.

    width: of the screen. Names that leave no room for the numbers are broken at their dashes.
    """
    table = Table("run")
    for column in ("rounds", "AULC\naccuracy", "AULC\nDice", "human\nmaps", "time"):
        table.add_column(column, justify="right")
    for run in driver.runs.values():
        name = Text(textwrap.fill(run.name, max(20, width - BESIDE_THE_NAME)))
        if run.state != "done":
            table.add_row(name, f"{run.rounds}/{run.total}", Text("failed", "red"))
            continue
        summary = read_json(run.folder.summary_json)
        areas = (summary["aulc_accuracy"], summary["aulc_dice"])
        table.add_row(
            name,
            str(summary["rounds"]),
            *("-" if area is None else f"{area:.3f}" for area in areas),
            str(summary["human_maps"]),
            duration(summary["seconds"]),
        )
    return table
