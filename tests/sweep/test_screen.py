"""What a person sees: lines for each change in a log, a table on a terminal, and the results."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from rich.console import Console
from sweep_runs import configs

from sal_fast.sweep import driver, plan, screen


@pytest.fixture
def made(shared_folder: Path, tmp_path: Path) -> driver.Driver:
    """Three runs of which none has begun."""
    found = configs(tmp_path, data=shared_folder, regime="b1", seed=[0, 1, 2])
    return driver.Driver(plan.examine(found).planned, tmp_path, 3)


def test_lines_where_there_is_no_terminal(made: driver.Driver, caplog: pytest.LogCaptureFixture) -> None:
    first, second, third = made.runs.values()
    first.state = "done"  # before this command
    with caplog.at_level(logging.INFO, "sal_fast"), screen.following(Console(file=io.StringIO())) as show:
        show(made)
        second.state, second.note = "running", "some-host"
        show(made)
        show(made)
        second.rounds, second.state, second.note = 3, "done", ""
        third.state, third.note = "failed", "no disk"
        show(made)
    assert caplog.messages == [
        f"1/3 done, 1 running: {second.name} runs, 0 of 3 rounds finished (some-host)",
        f"2/3 done, 1 failed: {second.name} is done",
        f"2/3 done, 1 failed: {third.name} failed (no disk)",
    ]


def test_a_table_on_a_terminal(made: driver.Driver) -> None:
    """Runs that are over are the first to be left out of a window that is too low."""
    for run, state in zip(made.runs.values(), ("done", "running", "failed"), strict=True):
        run.state = state
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, height=9, legacy_windows=False)
    with screen.following(console) as show:
        show(made)
        made.runs = dict(
            [*made.runs.items(), *((f"more-{i}", run) for i, run in enumerate(made.runs.values()))]
        )
        show(made)
    told = file.getvalue()
    assert "1/3 done, 1 running, 1 failed" in told
    last = told[told.rindex("rounds") :]
    assert "failed" in last
    assert "and 3 more" in last


def test_results_of_failed_runs(made: driver.Driver) -> None:
    first = next(iter(made.runs.values()))
    first.state, first.rounds = "failed", 1
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as told:
        console.print(screen.results(made, console.width))
    assert f"│ {first.name} │    1/3 │   failed │" in told.get()


def test_results_fit_a_narrow_screen(made: driver.Driver) -> None:
    """A long name is broken at its dashes, and loses nothing."""
    first = next(iter(made.runs.values()))
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as told:
        console.print(screen.results(made, console.width))
    lines = told.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(first.name) > 80 - screen.BESIDE_THE_NAME
    assert first.name in "".join(line.split("│")[1].strip() for line in lines if "│" in line)
