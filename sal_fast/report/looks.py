"""The look of every label on a page: one colour, one marker and one kind of dashes, whatever the figure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from matplotlib.colors import to_hex, to_rgb

from sal_fast.experiment.regimes import REGIMES
from sal_fast.report.runs import Run

Style = dict[str, Any]

# Okabe and Ito's colours, without the yellow that is lost on white paper.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
)  # fmt: skip
GREY = "#767676"  # of references and of legends for shapes alone: no setting has it
GRID = "#e6e6e6"
# The "muted" scheme of Paul Tol, Colour Schemes (SRON/EPS/TN/09-002), the darker ones first. The regimes have
# Okabe and Ito's colours.
MORE_COLOURS = (
    "#332288", "#882255", "#999933", "#117733", "#CC6677", "#44AA99", "#AA4499", "#88CCEE", "#DDCC77"
)  # fmt: skip
SERIES = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK, *MORE_COLOURS)  # of parts that are no settings
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))
FILLS = ("full", "none", "left", "bottom", "right", "top")
MARKER_SIZE = {"*": 9.0, "D": 4.5, "s": 4.5}


class Looks:
    """The looks of one page. No two labels of one figure have the same colour.

    The first line of a regime, in the order of the report, has the regime's colour. Criteria and all other
    labels take the next free colour: those of regimes that are not on the page, then `MORE_COLOURS`, then
    tints of both. If panels differ in the criterion alone, a group that is named with its criterion has the
    criterion's colour.

    Markers are the regimes'. Dashes and filling tell the labels of one regime apart, for print without
    colours. If all runs are of one regime, markers tell them apart instead of filling.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        regimes = dict.fromkeys(run.regime for run in runs)
        taken = {REGIMES[name].colour for name in regimes}
        colours = (*(regime.colour for regime in REGIMES.values()), *MORE_COLOURS)
        self._free = _tinted([colour for colour in colours if colour not in taken])
        self._one_regime = len(regimes) == 1
        self._looks: dict[str, Style] = {}
        self._used: Counter[str] = Counter()  # how many labels of each regime have a look
        self._criteria = {
            name: {"color": next(self._free), "linestyle": LINES[i % len(LINES)]}
            for i, name in enumerate(dict.fromkeys(filter(None, map(criterion_of, runs))))
        }
        for run in runs:
            self.line(run.line, run)

    def line(self, label: str, run: Run) -> Style:
        """The look of a label that stands for `run`, and for others like it."""
        if label not in self._looks:
            regime, nth = REGIMES[run.regime], self._used[run.regime]
            marker = regime.marker
            if self._one_regime:
                others = [one.marker for one in REGIMES.values() if one.marker != marker]
                marker = [marker, *others][nth % (1 + len(others))]
            if label != run.line and list(run.compared) == ["criterion"]:
                colour = self.criterion(run)["color"]
            else:
                colour = next(self._free) if nth else regime.colour
            self._looks[label] = {
                "color": colour,
                "marker": marker,
                "markersize": MARKER_SIZE.get(marker, 5.0),
                "fillstyle": "full" if self._one_regime else FILLS[nth % len(FILLS)],
                "markerfacecoloralt": "white",
                "linestyle": LINES[nth % len(LINES)],
                "linewidth": 1.8,
            }
            self._used[run.regime] += 1
        return self._looks[label]

    def criterion(self, run: Run) -> Style:
        """The colour and the dashes of a run's criterion, on a page with several."""
        return self._criteria[criterion_of(run)]


def criterion_of(run: Run) -> str:
    """The label of a run's criterion, on a page with several."""
    return run.compared.get("criterion", "")


def _tinted(colours: Sequence[str]) -> Iterator[str]:
    """The colours; then again and again, each time nearer to white, so that none comes twice."""
    for lap in count():
        for colour in colours:
            red, green, blue = (part + (1 - part) * lap / (lap + 2) for part in to_rgb(colour))
            yield to_hex((red, green, blue))
