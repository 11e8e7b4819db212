"""`--tracker wandb`: a run of Weights & Biases. `WANDB_MODE=offline` keeps it in RUN/wandb."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import Any

from sal_fast._util.files import write_bytes
from sal_fast.experiment.loading import Run
from sal_fast.experiment.sheet import Pixels
from sal_fast.experiment.trackers.base import Numbers

FILE = "wandb.txt"  # in the run folder: the id of the run there
PROJECT = "sal-fast"  # unless WANDB_PROJECT says another


class WeightsAndBiases(Numbers):
    """A run that goes on after a kill is the same run there, because its folder keeps its id."""

    library, title, extra = "wandb", "Weights & Biases", "wandb"

    def begin(self, run: Run) -> None:
        import wandb

        known = run.path / FILE
        if not known.exists():
            write_bytes(known, uuid.uuid4().hex[:16].encode())
        self._module: Any = wandb
        settings = wandb.Settings(init_timeout=60)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.path.resolve().name,
            id=known.read_text(encoding="utf-8").strip(),
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
