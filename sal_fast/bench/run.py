"""A whole run on the built-in set, small, and where its time goes."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sal_fast._util import progress
from sal_fast.bench import timing
from sal_fast.bench.timing import Ratio
from sal_fast.data import builtin
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.experiment.record import RunFolder
from sal_fast.experiment.run import run

STAGES = ("train", "evaluate", "score", "select", "annotate")
REST, START, WHOLE = "rest of the rounds", "before the rounds", "whole run"


@dataclass(frozen=True)
class Options(timing.Options):
    """A whole run end to end, on the built-in set in the regime sal, and the shares of its stages.

    Three rounds: 24, 48 and 72 labelled images; the last query is annotated by the interpretability model.
    """

    rounds: int = 1
    """How often the run is repeated."""
    epochs: int = 3
    """Epochs a model."""
    criterion: str = "badge"
    """How images are chosen for labelling."""
    image_size: int = 64
    """Pixels a side."""

    def check(self) -> None:
        super().check()
        if self.trace is not None:
            raise InputError("--trace: a whole run is too long for a trace; `sal-fast bench step` has one")
        Config.of({"criterion": self.criterion})


def measure(options: Options, device: torch.device) -> dict[str, Any]:
    load = os.getloadavg()[0]
    timed: dict[str, list[float]] = {name: [] for name in (*STAGES, REST, START, WHOLE)}
    builtin.load()  # its files are made once, not in a run's time
    with progress.bar("bench run", options.rounds) as advance:
        for _ in range(options.rounds):
            for name, spent in once(options, device).items():
                timed[name].append(spent)
            advance()
    ratios = [Ratio(name, WHOLE) for name in timed if name != WHOLE]
    items = dict.fromkeys(timed, 1)
    return timing.document("run", device, options, load, timed, ratios, unit="runs", items=items)


def once(options: Options, device: torch.device) -> dict[str, float]:
    """Seconds of a run by stage; what it prints goes to stderr."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        asked = {
            "epochs": options.epochs,
            "criterion": options.criterion,
            "image_size": options.image_size,
            "stop_fraction": 0.3,
            "device": str(device),
            "out": str(Path(folder) / "run"),
        }
        begin = time.perf_counter()
        path = run(Config.of(asked)).path
        whole = time.perf_counter() - begin
        lines = RunFolder(path).rounds()
    stages = {name: sum(line["timings"].get(name, 0.0) for line in lines) for name in STAGES}
    rounds = sum(line["seconds"] for line in lines)
    return {**stages, REST: rounds - sum(stages.values()), START: whole - rounds, WHOLE: whole}
