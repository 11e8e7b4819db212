"""`--tracker tensorboard`: event files in RUN/tensorboard, by torch's own writer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sal_fast.experiment.loading import Run
from sal_fast.experiment.sheet import Pixels
from sal_fast.experiment.trackers.base import Numbers

FOLDER = "tensorboard"


class TensorBoard(Numbers):
    """`tensorboard --logdir RUN` shows the run.

    Epochs that a killed round sent are hidden when it runs again. Those of a baseline's model are not.
    """

    library, title, extra = "tensorboard", "TensorBoard", "tensorboard"

    def begin(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        first = len(run.rounds) * run.config.epochs
        self._writer: Any = SummaryWriter(str(run.path / FOLDER), purge_step=first)

    def send(self, axis: str, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(f"{axis}/{name}", value, step)

    def show(self, name: str, step: int, pixels: Pixels) -> None:
        self._writer.add_image(f"round/{name}", pixels, step, dataformats="HWC")
        self._writer.flush()

    def finish(self) -> None:
        self._writer.close()
