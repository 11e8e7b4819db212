"""sal-fast bench."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from sal_fast._util.files import write_json
from sal_fast.bench import table, timing
from sal_fast.cli import parsing
from sal_fast.errors import InputError

BENCHES = {
    "data": "how fast images and masks become batches",
    "ops": "the main ops at the paper's sizes",
    "step": "a training step with saliency and without",
    "score": "scoring a pool",
    "select": "the six criteria",
    "run": "a whole small run, by stage",
}


def main(arguments: list[str]) -> int:
    if arguments[:1] in ([], ["-h"], ["--help"]):
        print("usage: sal-fast bench NAME [OPTIONS]\n\nWhat the parts cost here, against the usual code.\n")
        for name, purpose in (*BENCHES.items(), ("plot", "figures of results: bench plot FILES --out DIR")):
            print(f"  {name:8} {purpose}")
        print("\n`sal-fast bench NAME --help` lists a benchmark's options.")
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "plot":
        return parsing.one_line(_plot, rest, "sal-fast bench plot")
    if name not in BENCHES:
        raise InputError(f"unknown command 'bench {name}' (expected one of {', '.join(BENCHES)}, plot)")
    module = importlib.import_module(f"sal_fast.bench.{name}")
    options: timing.Options = parsing.one_line(module.Options, rest, f"sal-fast bench {name}")
    options.check()
    device = parsing.device(options.device)
    with timing.threads(options):
        document = module.measure(options, device)
    table.show(document, Console())
    if options.out is not None:
        write_json(options.out.expanduser(), document)
        print(options.out)
    if options.plot is not None:
        from sal_fast.bench import plot  # matplotlib is not on every machine with a GPU

        plot.write(document, options.plot.expanduser())
        print(options.plot)
    if options.trace is not None:
        print(options.trace)
    return 0


def _plot(files: Annotated[tuple[Path, ...], tyro.conf.Positional], /, out: Path = Path()) -> int:
    """A figure of the ratios of each result file.

    Args:
        files: JSON files that `sal-fast bench NAME --out FILE` wrote.
        out: the folder for <name>.png.
    """
    from sal_fast.bench import plot

    documents = {path: plot.read(path.expanduser()) for path in files}
    out = out.expanduser()
    out.mkdir(parents=True, exist_ok=True)
    for path, document in documents.items():
        target = out / f"{path.stem}.png"
        plot.write(document, target)
        print(target)
    return 0
