"""The map source of each query of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sal_fast.experiment.budget import Plan
from sal_fast.experiment.config import Config
from sal_fast.experiment.regimes import GENERATED, Regime, Source

Trials = Sequence[float | None]


@dataclass(frozen=True)
class Turns:
    """Tells the map source of each query of a run.

    Query 0 is the start set, and query r is asked after round r - 1. The argument `trials` holds those of the
    queries before (`budget.takes_over`). With `--human-budget auto` they decide when the model takes over.
    """

    regime: Regime
    plan: Plan
    generator: str | None

    @classmethod
    def of(cls, config: Config, plan: Plan) -> Turns:
        return cls(config.its_regime, plan, config.generator)

    def source(self, query_index: int, trials: Trials) -> Source:
        """The map source of a query."""
        return self.regime.source(self.plan.asks_people(query_index, trials), self.generator)

    def drawer(self, query_index: int, trials: Trials) -> Source:
        """The machine that draws for a query, perhaps on trial beside people; `none` if no machine does."""
        source = self.source(query_index, trials)
        if self.plan.auto and source == "human" and query_index:
            source = self.regime.drawer(self.generator)
        return source if source in GENERATED else "none"

    def drawer_after(self, round_index: int, trials: Trials) -> Source:
        """The machine that draws for the query after a round; `none` after the last round."""
        last = round_index + 1 == self.plan.rounds
        return "none" if last else self.drawer(round_index + 1, trials)

    def work(self, round_index: int, trials: Trials) -> int:
        """A measure of a round's cost: the images that it trains on, counted once for each model."""
        models = 1 + (self.drawer_after(round_index, trials) == "interpretability")
        return self.plan.labelled[round_index] * models

    def certain_sources(self) -> list[Source]:
        """The map source of each query as far as it is certain before the run.

        With `--human-budget auto` a model may draw for every query but the start set, so it is listed there.
        """
        return [
            self.regime.source(human and not (self.plan.auto and query_index), self.generator)
            for query_index, human in enumerate(self.plan.human)
        ]
