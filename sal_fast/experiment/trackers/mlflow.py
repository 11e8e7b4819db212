"""`--tracker mlflow`: a run of MLflow, where `MLFLOW_TRACKING_URI` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sal_fast._util.files import write_bytes
from sal_fast.experiment.loading import Run
from sal_fast.experiment.sheet import Pixels
from sal_fast.experiment.trackers.base import Numbers

FILE = "mlflow.txt"  # in the run folder: the id of the run there, so that a run goes on as the same one
LONGEST = 500  # characters of a parameter's value


class MlFlow(Numbers):
    """Metrics are `round/...` and `epoch/...`; the sheets of queries are artifacts."""

    library, title, extra = "mlflow", "MLflow", "mlflow"

    def begin(self, run: Run) -> None:
        import mlflow

        self._module: Any = mlflow
        known = run.path / FILE
        if known.exists():
            mlflow.start_run(run_id=known.read_text(encoding="utf-8").strip())
            return
        mlflow.set_experiment(experiment_name="sal-fast")
        begun = mlflow.start_run(run_name=run.path.resolve().name)
        write_bytes(known, begun.info.run_id.encode())
        mlflow.log_params({name: str(value)[:LONGEST] for name, value in run.config.options().items()})

    def send(self, axis: str, step: int, numbers: Mapping[str, float]) -> None:
        named = {f"{axis}/{name}": value for name, value in numbers.items()}
        self._module.log_metrics(named, step=step)

    def show(self, name: str, step: int, pixels: Pixels) -> None:
        self._module.log_image(pixels, artifact_file=f"{name}/{step:03d}.png")

    def finish(self) -> None:
        self._module.end_run()
