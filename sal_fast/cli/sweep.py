"""sal-fast sweep."""

import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from sal_fast.cli import parsing
from sal_fast.cli.output import say
from sal_fast.errors import InputError
from sal_fast.sweep import cluster, driver, grid, plan, screen
from sal_fast.sweep.slots import Node, Slot


@dataclass(frozen=True)
class Options:
    """Make many runs on Ray: every combination of the lists in a grid file.

    The same command continues a sweep, however it was interrupted. Finished runs are not made again, and
    rounds that regimes have in common are trained once. Exit status: 0 all runs finished, 1 some failed, 2
    bad input.
    """

    grid: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE")]
    """A .toml file of options, some of which are lists; or a grid that comes with the program
    (docs/sweep.md): small, controls, paper, paper-swin, paper-probes, paper-budget, paper-alpha,
    paper-segmenter."""
    plan: tyro.conf.UseCounterAction[int] = 0
    """Start nothing; tell what the sweep takes: runs, trainings, time, memory, disk, and what is missing."""
    root: str | None = None
    """The folder of the paper's data sets: DIR/cub200, DIR/flowers102, ... hold the official archives of
    each. A root in the grid goes before it."""
    weights: str | None = None
    """Initial weights, in place of the grid's: none, a torchvision weights name, or a file."""
    segmenter_masks: str | None = None
    """For the regime segmenter: the folder that holds DIR/cub200/<id>.png, ..."""
    address: str | None = None
    """A Ray cluster: host:port, or auto on one of its nodes. Not given: this machine alone."""
    out: Path | None = None
    """The folder of the runs' folders, which all nodes share. Not given: runs/<name of the grid>."""
    gpus_per_run: float | None = None
    """A share of a GPU (0.25: four runs on each). Not given: 1 if there are GPUs."""
    cpus_per_run: int | None = None
    """Cores, and threads, of a run. Not given: 1; beside a GPU the share that falls to the run, 8 at most."""
    retries: int = 3
    """How often a run whose worker is lost is tried again without a new finished round."""

    def check(self) -> None:
        """Raise InputError for the first value that is out of range."""
        if self.gpus_per_run is not None and not 0 <= self.gpus_per_run <= 1:
            raise InputError(
                f"--gpus-per-run {self.gpus_per_run:g}: expected 0 to 1; a run uses one GPU at most"
            )
        if self.cpus_per_run is not None and self.cpus_per_run < 1:
            raise InputError(f"--cpus-per-run {self.cpus_per_run}: expected at least 1")
        if self.retries < 0:
            raise InputError(f"--retries {self.retries}: expected at least 0")
        if self.address is not None and self.address.startswith("ray://"):
            raise InputError(
                f"--address {self.address}: expected host:port or auto, given on a node of the cluster: the "
                f"driver reads the run folders"
            )


def main(arguments: list[str]) -> int:
    options = parsing.one_line(Options, arguments, "sal-fast sweep")
    options.check()
    made_of = grid.read_grid(options.grid)
    folder = (options.out or Path("runs") / made_of.name).resolve()
    configs = made_of.configs(folder, grid.Place(options.root, options.weights, options.segmenter_masks))
    outlook = plan.examine(configs)
    cpu_only = all(config.device == "cpu" for config in configs)
    choose = partial(Slot.on, cpus=options.cpus_per_run, gpus=options.gpus_per_run, cpu_only=cpu_only)
    if options.plan:
        here = Node.here()
        slots = max(1, choose([here]).fits(here))
        command = shlex.join(["sal-fast", "sweep", *(word for word in arguments if word != "--plan")])
        print(plan.Description(made_of.name, outlook, folder, slots, command))
        return 0
    if outlook.problems:
        more = f" (and {len(outlook.problems) - 1} more; --plan lists them)" if outlook.problems[1:] else ""
        raise InputError(outlook.problems[0] + more)
    cluster.require_ray()
    with driver.holding(folder, made_of.name, made_of.text):
        sweep = driver.Driver(outlook.planned, folder, options.retries)
        sweep.read_folders()
        if not sweep.over:
            with cluster.connected(options.address, choose) as place:
                place.check()
                with screen.following(Console(stderr=True)) as show:
                    sweep.make_all(place, show)
    return _close(sweep, folder)


def _close(sweep: driver.Driver, folder: Path) -> int:
    """Print the table of results, and what to do next."""
    console = Console()
    console.print(screen.results(sweep, console.width))
    failed = [run for run in sweep.runs.values() if run.state == "failed"]
    for run in failed:
        say(f"failed: {run.name}: {run.note}")
    if failed:
        say("the same command tries the failed runs again")
    if any(run.rounds for run in sweep.runs.values()):
        say(f"report:\n  {shlex.join(['sal-fast', 'report', str(folder), '--out', f'{folder}/report'])}")
    return 1 if failed else 0
