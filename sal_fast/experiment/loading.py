"""A run for use from Python: its options, its rounds and its model, read from its folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sal_fast._util.files import read_json
from sal_fast.errors import InputError
from sal_fast.experiment import growing
from sal_fast.experiment.budget import Plan
from sal_fast.experiment.config import Config
from sal_fast.experiment.record import Round, RunFolder

if TYPE_CHECKING:
    from sal_fast.trained.model import SalModel


@dataclass(frozen=True)
class Run:
    """A run that was started. `sal_fast.run` and `sal_fast.load` return it.

    path: its folder.
    config: its options.
    classes: the names of the classes, in the order of the model's outputs.
    rounds: the finished rounds.
    summary: the content of summary.json (docs/report.md); None until the run is finished.
    record: the content of run.json.
    """

    path: Path
    config: Config
    classes: list[str]
    rounds: list[Round]
    summary: dict[str, Any] | None
    record: dict[str, Any] = field(repr=False)

    @property
    def finished(self) -> bool:
        """True if the run is finished."""
        return self.summary is not None

    @property
    def plan(self) -> Plan:
        """The number of labelled images in each round, and the queries that people draw maps for."""
        return growing.plan_of(self.config, self.record)

    def doubts(self, one: Round) -> list[str]:
        """Sentences on why the test of a round means little; an empty list if nothing speaks against it.

        A round of an older sal-fast, which did not keep the figures of classes, gives none.
        """
        from sal_fast.metrics import doubts

        if one.per_class is None:
            return []
        predicted = [name for name, count in zip(self.classes, one.per_class.predicted, strict=True) if count]
        return doubts(one.per_class.images, predicted, one.dice_images)

    def model(self, device: str = "cpu") -> SalModel:
        """The accuracy model of the last finished round, in eval mode: `sal_fast.load_model` of the folder.

        Raises InputError if no round is finished, or if the weights of the last one are gone.
        """
        from sal_fast.trained.model import load_model

        return load_model(self.path, device)


def load(path: str | Path) -> Run:
    """Read a run's folder. Raises InputError if there is no run in it, or its files are damaged."""
    folder = RunFolder(Path(path).expanduser())
    if not folder.run_json.exists():
        raise InputError(f"{folder.path}: no run.json in it; name the folder of a run")
    record = folder.run()
    summary = read_json(folder.summary_json) if folder.summary_json.exists() else None
    rounds = []
    for index, line in enumerate(folder.rounds(mend=False)):
        try:
            rounds.append(Round.of(line))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{folder.path / 'rounds.jsonl'}, line {index + 1}: not the line of a round ({error!r}); "
                f"restore the file"
            ) from None
    return Run(folder.path, folder.config(), list(record["data"]["classes"]), rounds, summary, record)
