"""sal-fast sweep."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console

from sal_fast.cli import parsing
from sal_fast.errors import InputError
from sal_fast.sweep import cluster, driver, grid, plan, screen


def main(arguments: list[str]) -> int:
    return parsing.one_line(_sweep, arguments, "sal-fast sweep")


def _sweep(
    grid_file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(name="", metavar="NAME|FILE")],
    /,
    plan_only: Annotated[tyro.conf.UseCounterAction[int], tyro.conf.arg(name="plan")] = 0,
    address: str | None = None,
    out: Path | None = None,
    gpus_per_run: float | None = None,
    cpus_per_run: int | None = None,
    retries: int = 3,
) -> int:
    """Many runs: every combination of the lists in a grid file, on Ray.

    The same command continues a sweep that was interrupted, however it was; what is finished is not run
    again. Rounds that regimes have in common are trained once. Exit status: 0 all runs finished, 1 some
    failed, 2 bad input.

    Args:
        grid_file: a .toml file of options, some of them lists (docs/sweep.md), or a grid that comes with the
            program: builtin-small.
        plan_only: only tell what it takes: runs, trainings, time, memory, disk, and what is missing.
        address: of a Ray cluster: host:port, or auto on one of its nodes; None: this machine alone.
        out: the folder of the runs' folders, shared by all nodes; None: runs/<name of the grid>.
        gpus_per_run: a share of a GPU (0.25: four runs on each); None: 1 where there are GPUs.
        cpus_per_run: cores, and threads, of a run; None: 1, or on GPUs the share that falls to it, 8 at most.
        retries: how often a run whose worker is lost is tried again without a new finished round.
    """
    if gpus_per_run is not None and not 0 <= gpus_per_run <= 1:
        raise InputError(f"--gpus-per-run {gpus_per_run:g}: expected 0 to 1; a run uses one GPU at most")
    if cpus_per_run is not None and cpus_per_run < 1:
        raise InputError(f"--cpus-per-run {cpus_per_run}: expected at least 1")
    if retries < 0:
        raise InputError(f"--retries {retries}: expected at least 0")
    if address is not None and address.startswith("ray://"):
        raise InputError(
            f"--address {address}: expected host:port or auto, given on a node of the cluster; it is the "
            f"driver that reads the run folders"
        )
    asked = grid.read(grid_file)
    folder = Path(grid.absolute(str(out or Path("runs") / asked.name)))
    runs = asked.runs(folder)
    outlook = plan.look(runs)
    cpu_only = all(run.config.device == "cpu" for run in runs)
    if plan_only:
        gpus = 0 if cpu_only else torch.cuda.device_count()
        gpu_share = (1.0 if gpus else 0.0) if gpus_per_run is None else gpus_per_run
        cpus = cpus_per_run or (plan.cpus_beside_gpus(plan.cores(), gpus, gpu_share) if gpu_share else 1)
        slots = plan.slots_here(plan.cores(), gpus, cpus, gpu_share)
        command = f"sal-fast sweep {shlex.quote(grid_file)}" + (
            f" --out {shlex.quote(str(out))}" if out else ""
        )
        print(plan.describe(asked.name, outlook, folder, slots, command))
        return 0
    if outlook.problems:
        more = f" (and {len(outlook.problems) - 1} more; --plan lists them)" if outlook.problems[1:] else ""
        raise InputError(outlook.problems[0] + more)
    return _run(asked, outlook, folder, address, gpus_per_run, cpus_per_run, retries, cpu_only)


def _run(
    asked: grid.Grid,
    outlook: plan.Outlook,
    folder: Path,
    address: str | None,
    gpus_per_run: float | None,
    cpus_per_run: int | None,
    retries: int,
    cpu_only: bool,
) -> int:
    cluster.require_ray()
    with driver.held(folder, asked.name, asked.text):
        sweep = driver.Driver(outlook.planned, folder, retries)
        sweep.look()
        if not all(run.over for run in sweep.runs.values()):
            with cluster.connected(address, cpus_per_run, gpus_per_run, cpu_only) as place:
                place.check()
                with screen.shown() as show:
                    sweep.go(place, show)
    console = Console(width=None if os.isatty(1) else 120)
    console.print(screen.final_table(sweep, driver.summaries(sweep)))
    failed = [run for run in sweep.runs.values() if run.state == "failed"]
    for run in failed:
        console.print(f"failed: {run.name}: {run.note}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        print("the same command tries the failed runs again")
    if any(run.rounds for run in sweep.runs.values()):
        place_of_report = shlex.quote(str(folder / "report"))
        print(f"report: sal-fast report {shlex.quote(str(folder))} --out {place_of_report}")
    return 1 if failed else 0
