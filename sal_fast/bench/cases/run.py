"""A whole small run, and where its time goes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch

import sal_fast
from sal_fast.bench.suite import Benchmark as Base
from sal_fast.bench.suite import Case, Ratio
from sal_fast.data import builtin
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config

STAGES = ("train", "evaluate", "score", "select", "annotate")
REST, START, WHOLE = "rest of the rounds", "before the rounds", "whole run"


@dataclass(frozen=True)
class Benchmark(Base):
    """A whole run on the built-in set in the regime sal, and the shares of its stages.

    It has three rounds, with 24, 48 and 72 labelled images. The interpretability model annotates the last
    query.
    """

    SMALL: ClassVar = {"epochs": 1, "image_size": 48, "criterion": "margin"}
    UNIT: ClassVar = "runs"

    rounds: int = 1
    """How often the run is repeated."""
    epochs: int = 3
    """Epochs of each training."""
    criterion: str = "badge"
    """How images are chosen for labelling."""
    image_size: int = 64
    """Pixels a side."""

    def check(self) -> None:
        super().check()
        if self.trace is not None:
            raise InputError("--trace: a whole run is too long for a trace; `sal-fast bench step` has one")
        Config.of({"criterion": self.criterion})

    def cases(self, device: torch.device) -> Iterator[Case]:
        builtin.load()  # makes the files of the set, which is no part of a run's time
        ratios = [Ratio(name, WHOLE) for name in (*STAGES, REST, START)]
        yield Case(parts=partial(self._once, device), ratios=ratios)

    def _once(self, device: torch.device) -> dict[str, float]:
        """Return the seconds of each part of a run."""
        with tempfile.TemporaryDirectory() as folder:
            asked = {
                "epochs": self.epochs,
                "criterion": self.criterion,
                "image_size": self.image_size,
                "stop_fraction": 0.3,
                "device": str(device),
                "out": str(Path(folder) / "run"),
            }
            begin = time.perf_counter()
            run = sal_fast.run(Config.of(asked), on_round=lambda run, finished: None)
            whole = time.perf_counter() - begin
        stages = {name: sum(one.timings.get(name, 0.0) for one in run.rounds) for name in STAGES}
        rounds = sum(one.seconds for one in run.rounds)
        return {**stages, REST: rounds - sum(stages.values()), START: whole - rounds, WHOLE: whole}
