"""Grids of runs that take a second each, and what is the same however they were made."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from experiment_runs import TINY, kept, rounds

from sal_fast.sweep import grid

# three rounds, of 5, 9 and 14 images; people draw the maps of the first two queries
SMALL: dict[str, Any] = {**TINY, "epochs": 1, "human_budget": 0.5}


def toml(**options: Any) -> str:
    def spell(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list):
            return f"[{', '.join(map(spell, value))}]"
        return f'"{value}"' if isinstance(value, str | Path) else repr(value)

    return "".join(f"{name} = {spell(value)}\n" for name, value in {**SMALL, **options}.items())


def runs(out: Path, **options: Any) -> list[grid.Run]:
    return grid.parse("small", "small.toml", toml(**options)).runs(out)


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
    return rounds(folder), kept(folder)


def holders(out: Path) -> dict[int, Path]:
    """The processes that hold a run's folder: process -> folder."""
    found = {}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = Path(os.readlink(link))
        except OSError:
            continue
        if target.name == ".lock" and target.parent.parent == out:
            found[int(link.parts[2])] = target.parent
    return found


def marked(text: str) -> list[str]:
    """Command lines of the living processes with `text` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            command = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if state != "Z" and int(folder.name) != os.getpid() and text.encode() in environment:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def wait_for(condition: Any, seconds: float = 120.0) -> Any:
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return value
