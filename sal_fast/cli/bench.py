"""The command `sal-fast bench`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table as Grid

from sal_fast._util import progress
from sal_fast.bench import figure, measure, result, suite, table
from sal_fast.cli import parsing
from sal_fast.cli.commands import chosen, purpose
from sal_fast.errors import InputError


@dataclass(frozen=True)
class Plot:
    """Draw the figures of result files again."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """JSON files that `sal-fast bench NAME --out FILE` wrote."""
    out: Path = Path()
    """The folder for <name>.png."""


@dataclass(frozen=True)
class Table:
    """Print the tables of result files in Markdown."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """JSON files that `sal-fast bench NAME --out FILE` wrote."""


def main(arguments: list[str]) -> int:
    """Compare what the parts of a run and single ops cost here with the usual code."""
    kinds: dict[str, Any] = {name: suite.load(name) for name in suite.NAMES} | {"plot": Plot, "table": Table}
    listed = {name: purpose(kind) for name, kind in kinds.items()}
    name = chosen(listed, arguments, "sal-fast bench", str(main.__doc__))
    if name is None:
        return 0 if arguments else 2
    command = parsing.one_line(kinds[name], arguments[1:], f"sal-fast bench {name}")
    if isinstance(command, suite.Benchmark):
        _measure(command)
        return 0
    if not command.files:
        raise InputError(f"bench {arguments[0]}: name at least one result file")
    documents = {path: result.read(path) for path in command.files}
    for path, document in documents.items():
        if isinstance(command, Plot):
            target = command.out.expanduser() / f"{path.stem}.png"
            figure.write(document, target)
            print(target)
        else:
            print(*(sheet.markdown() for sheet in table.sheets(document)), sep="\n\n", end="\n\n")
    return 0


def _measure(benchmark: suite.Benchmark) -> None:
    parsing.device(benchmark.device)  # raises InputError if it is not there
    document = measure.measure(benchmark, functools.partial(progress.bar, log=False))
    console = Console()
    for sheet in table.sheets(document):
        grid = Grid(title=sheet.title)
        for at, name in enumerate(sheet.columns):
            grid.add_column(name, justify="right" if at else "left", overflow="fold")
        for row in sheet.rows:
            grid.add_row(*row)
        console.print(grid, markup=False)
    for path in (benchmark.out, benchmark.plot, benchmark.trace):
        if path is not None:
            print(path)
