"""The command `sal-fast bench`."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro
from rich.console import Console
from rich.table import Table as Grid

from sal_fast._util import progress
from sal_fast.bench import figure, measure, result, suite, table
from sal_fast.cli import parsing
from sal_fast.cli.output import say
from sal_fast.errors import InputError

Files = Annotated[tuple[Path, ...], tyro.conf.Positional]


def main(arguments: list[str]) -> int:
    """Compare what the parts of a run and single ops cost here with the usual code."""
    functions: dict[str, Any] = {name: _command(suite.load(name)) for name in suite.NAMES}
    functions |= {"plot": plot, "table": tables}
    return parsing.one_of(functions, arguments, "sal-fast bench", str(main.__doc__))


def _command(benchmark: suite.Benchmark) -> Callable[..., None]:
    """Return the command of a benchmark: a function of the benchmark's options that shows the result."""

    def command(setup: suite.Setup, **sizes: Any) -> None:
        document = measure.measure(benchmark, setup, functools.partial(progress.bar, log=False), **sizes)
        for sheet in table.sheets(document):
            grid = Grid(title=sheet.title)
            for at, name in enumerate(sheet.columns):
                grid.add_column(name, justify="right" if at else "left", overflow="fold")
            for row in sheet.rows:
                grid.add_row(*row)
            Console().print(grid, markup=False)
        for path in (setup.out, setup.plot, setup.trace):
            if path is not None:
                say(str(path))

    command.__doc__ = benchmark.function.__doc__
    kind: Any = benchmark.setup
    unprefixed = Annotated[kind, tyro.conf.arg(name="")]
    command.__annotations__ = {**get_type_hints(benchmark.function), "setup": unprefixed}
    command.__signature__ = inspect.signature(benchmark.function)  # type: ignore[attr-defined]
    return command


def plot(files: Files, out: Path = Path()) -> None:
    """Draw the figures of result files again.

    Args:
        files: JSON files that `sal-fast bench NAME --out FILE` wrote.
        out: the folder for <name>.png.
    """
    for path, document in _documents(files).items():
        target = out / f"{path.stem}.png"
        figure.write(document, target)
        say(str(target))


def tables(files: Files) -> None:
    """Print the tables of result files in Markdown.

    Args:
        files: JSON files that `sal-fast bench NAME --out FILE` wrote.
    """
    for document in _documents(files).values():
        print(*(sheet.markdown() for sheet in table.sheets(document)), sep="\n\n", end="\n\n")


def _documents(files: tuple[Path, ...]) -> dict[Path, dict[str, Any]]:
    if not files:
        raise InputError("name at least one result file")
    return {path: result.read(path) for path in files}
