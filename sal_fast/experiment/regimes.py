"""The seven training regimes of the paper (Sec. 5, App. F), as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["none", "human", "segmenter", "interpretability", "accuracy", "teacher", "callable"]
GENERATED: tuple[Source, ...] = ("interpretability", "accuracy", "teacher", "callable")

INTERPRETABILITY_ALPHA = 0.1  # paper Sec. 4
TEACHER_ALPHA = 0.5  # Crum et al. 2023


@dataclass(frozen=True)
class Regime:
    """alpha of the accuracy model (Eq. 1), and whose maps a queried image gets.

    `within`: for queries inside the human budget; `beyond`: after it. `interpretability` and `teacher` are
    models of their own, `accuracy` the accuracy model itself, `callable` what `--generator` names.
    """

    alpha: float
    within: Source
    beyond: Source

    def drawer(self, generator: str | None) -> Source:
        """`beyond`, or in its model's place what `--generator` names."""
        return self.beyond if generator is None or self.beyond not in GENERATED else "callable"

    def source(self, human: bool, generator: str | None) -> Source:
        """Who draws the maps of a query: `within`, or once people no longer do, the drawer."""
        return self.within if human else self.drawer(generator)

    @property
    def uses_human_maps(self) -> bool:
        return "human" in (self.within, self.beyond)

    @property
    def uses_maps(self) -> bool:
        return (self.within, self.beyond) != ("none", "none")


REGIMES = {
    "b1": Regime(1.0, "none", "none"),
    "b2": Regime(0.9, "human", "human"),
    "sal": Regime(0.9, "human", "interpretability"),
    "sal-single": Regime(0.9, "human", "accuracy"),
    "no-ai-saliency": Regime(0.9, "human", "none"),
    "tait": Regime(0.9, "human", "teacher"),
    "segmenter": Regime(0.9, "segmenter", "segmenter"),
}
