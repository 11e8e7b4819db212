"""The seven training regimes of the paper (Sec. 5, App. F). A new regime is one entry of `REGIMES`."""

from dataclasses import dataclass
from typing import Literal

Source = Literal["none", "human", "segmenter", "interpretability", "accuracy", "teacher", "callable"]
GENERATED: tuple[Source, ...] = ("interpretability", "accuracy", "teacher", "callable")

INTERPRETABILITY_ALPHA = 0.1  # paper Sec. 4
TEACHER_ALPHA = 0.5  # Crum et al. 2023


@dataclass(frozen=True)
class Regime:
    """One training regime: how its loss is weighed, where its maps come from, and how reports show it.

    alpha: the weight of classification in the accuracy model's loss (paper Eq. 1).
    within, beyond: the map source of a query inside the human budget, and of one after it.
        `interpretability` and `teacher` are models of their own, `accuracy` is the accuracy model itself,
        `callable` is the generator that the run names.
    colour, marker: how figures draw it, as in the paper. The colours are those of Okabe and Ito.
    variant_of: the regime that the paper claims to be better than this one (its third claim).
    """

    alpha: float
    within: Source
    beyond: Source
    colour: str
    marker: str
    variant_of: str | None = None

    def drawer(self, generator: str | None) -> Source:
        """The map source after the human budget. A generator that the run names replaces a model."""
        return self.beyond if generator is None or self.beyond not in GENERATED else "callable"

    def source(self, human: bool, generator: str | None) -> Source:
        """The map source of a query: `within` while people draw (`human`), else `drawer`."""
        return self.within if human else self.drawer(generator)

    @property
    def uses_maps(self) -> bool:
        """True if any image is trained with a map."""
        return (self.within, self.beyond) != ("none", "none")

    @property
    def uses_human_maps(self) -> bool:
        """True if people draw maps."""
        return "human" in (self.within, self.beyond)

    @property
    def uses_the_budget(self) -> bool:
        """True if the human budget changes anything, because the map source changes after it."""
        return self.within != self.beyond

    @property
    def has_teacher(self) -> bool:
        """True if a teacher is trained (TAIT)."""
        return self.beyond == "teacher"

    @property
    def uses_a_segmenter(self) -> bool:
        """True if a segmenter's masks are the maps."""
        return "segmenter" in (self.within, self.beyond)

    @property
    def takes_a_generator(self) -> bool:
        """True if `--generator` can draw in the place of the interpretability model or of a segmenter."""
        return self.beyond == "interpretability" or self.uses_a_segmenter

    @property
    def can_be_tried(self) -> bool:
        """True if a model of every round can draw on trial before it takes over (`--human-budget auto`)."""
        return self.beyond in ("interpretability", "accuracy")


REGIMES = {
    "b1": Regime(1.0, "none", "none", "#0072B2", "o"),
    "b2": Regime(0.9, "human", "human", "#E69F00", "D"),
    "sal": Regime(0.9, "human", "interpretability", "#CC79A7", "*"),
    "sal-single": Regime(0.9, "human", "accuracy", "#000000", "^", variant_of="sal"),
    "no-ai-saliency": Regime(0.9, "human", "none", "#D55E00", "s", variant_of="sal"),
    "tait": Regime(0.9, "human", "teacher", "#56B4E9", "v", variant_of="sal"),
    "segmenter": Regime(0.9, "segmenter", "segmenter", "#009E73", "X"),
}


def those_that(can: str) -> tuple[str, ...]:
    """The names of the regimes for which a property holds: `those_that("has_teacher")`."""
    return tuple(name for name, regime in REGIMES.items() if getattr(regime, can))
