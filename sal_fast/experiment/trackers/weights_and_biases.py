"""`--tracker wandb`: a run of Weights & Biases. `WANDB_MODE=offline` keeps it in RUN/wandb."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from sal_fast.errors import InputError
from sal_fast.experiment.loading import Run
from sal_fast.experiment.sheet import Pixels
from sal_fast.experiment.trackers.base import Numbers

PROJECT = "sal-fast"  # unless WANDB_PROJECT says another


class WeightsAndBiases(Numbers):
    """A run that goes on after a kill is the same run there, because its id follows from its folder."""

    def begin(self, run: Run) -> None:
        try:
            import wandb
        except ImportError:
            raise InputError(
                '--tracker wandb needs Weights & Biases: pip install "sal-fast[wandb]"'
            ) from None
        self._module: Any = wandb
        settings = wandb.Settings(init_timeout=60)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.path.resolve().name,
            id=hashlib.sha256(str(run.path.resolve()).encode()).hexdigest()[:16],
            resume="allow",
            dir=str(run.path),
            config=run.config.options(),
            settings=settings,
        )
        for axis in ("round", "epoch"):
            self._run.define_metric(f"{axis}/*", step_metric=f"{axis}/step")

    def send(self, axis: str, step: int, numbers: Mapping[str, float]) -> None:
        named = {f"{axis}/{name}": value for name, value in numbers.items()}
        self._run.log({**named, f"{axis}/step": step})

    def show(self, name: str, step: int, pixels: Pixels) -> None:
        self._run.log({f"round/{name}": self._module.Image(pixels), "round/step": step})

    def finish(self) -> None:
        self._run.finish()
