"""The figures drawn from the rounds: learning curves, AULC scatter, maps and seconds by round."""

import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from statistics import fmean, stdev
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sal_fast.report.runs import Run, by_dataset, by_group, spell

# Okabe and Ito's colours, without the yellow that is lost on white paper; shapes and colours as in the paper.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
)  # fmt: skip
GREY = "#767676"
REGIME_STYLE = {
    "b1": (BLUE, "o"),
    "b2": (ORANGE, "D"),
    "sal": (PURPLE, "*"),
    "sal-single": (BLACK, "^"),
    "no-ai-saliency": (VERMILLION, "s"),
    "tait": (SKY, "v"),
    "segmenter": (GREEN, "X"),
}
CRITERION_COLOUR = {
    "random": BLACK,
    "margin": BLUE,
    "least-confidence": ORANGE,
    "entropy": GREEN,
    "badge": VERMILLION,
    "core-set": PURPLE,
}
MARKER_SIZE = {"*": 9.0, "D": 4.5, "s": 4.5}
MOST_LINES = 12
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))

# Names of classes, folders and data sets are text, never mathematics.
RC: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.hashsalt": "sal-fast",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.markersize": 5,
    "hatch.linewidth": 0.6,
    "hatch.color": "white",
}


@dataclass(frozen=True)
class Picture:
    """A drawn figure: `name`.png beside the page, the SVG in it."""

    name: str
    alt: str
    inches: float
    svg: bytes
    png: bytes


@contextmanager
def drawing() -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def picture(figure: Figure, name: str, alt: str) -> Picture:
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.set_layout_engine("none")  # the PNG keeps the layout worked out for the SVG
    figure.savefig(png, format="png", dpi=200)
    return Picture(name, alt, figure.get_figwidth(), svg.getvalue(), png.getvalue())


def numbered(name: str, i: int, of: int) -> str:
    return name if of == 1 else f"{name}-{i + 1}"


def learning_curves(runs: Sequence[Run]) -> dict[str, list[Picture]]:
    """A row for each data set: Dice (where any run has it) and accuracy.

    More lines than an eye can follow are parted further, into a row for each criterion.
    """
    crowded = any(len(by_group(part)) > MOST_LINES for part in by_dataset(runs).values())
    parts: dict[str, list[Run]] = {}
    for run in runs:
        parts.setdefault(f"{run.dataset}, {run.criterion}" if crowded else run.dataset, []).append(run)
    rows = {}
    for i, (title, part) in enumerate(parts.items()):
        alike = [run for run in runs if not crowded or run.criterion == part[0].criterion]
        metrics = [m for m in ("dice", "accuracy") if any(run.curve(m) for run in part)]
        rows[title] = [
            picture(
                _curves(part, metric, title, _styles(alike)),
                numbered(f"curves-{metric}", i, len(parts)),
                f"Learning curves, {title}: {metric} against the number of labelled images.",
            )
            for metric in metrics
        ]
    return rows


def human_end(runs: Sequence[Run]) -> int | None:
    """The labelled count after which no human map is added, if all runs that reach such a point agree."""
    ends = set()
    for run in runs:
        most = run.last.human_maps
        first = next(r for r in run.rounds if r.human_maps == most)
        if most and first is not run.last:
            ends.add(first.labelled)
    return ends.pop() if len(ends) == 1 else None


def mean_curve(runs: Sequence[Run], metric: str) -> list[tuple[int, float, float]]:
    """(labelled, mean, sigma) at the labelled counts that all runs have; sigma is 0 for a single run."""
    curves = [run.curve(metric) for run in runs]
    shared = [x for x in curves[0] if all(x in curve for curve in curves)] if curves else []
    columns = [(x, [curve[x] for curve in curves]) for x in shared]
    return [(x, fmean(values), stdev(values) if len(values) > 1 else 0.0) for x, values in columns]


def _curves(runs: Sequence[Run], metric: str, title: str, styles: dict[str, dict[str, Any]]) -> Figure:
    handles = []
    figure, axes = _figure()
    for group, members in by_group(runs).items():
        style = styles[group]
        drawn = [run for run in members if run.curve(metric)]
        finished = [run for run in drawn if run.finished]
        mean = mean_curve(finished, metric)
        alone = [run for run in drawn if not run.finished] if mean else drawn
        if mean:
            x, y, sigma = (list(column) for column in zip(*mean, strict=True))
            axes.plot(x, y, **style)
            handles.append(Line2D([], [], **style, label=f"{group} (n={len(finished)})"))
            if len(finished) > 1:
                low = [m - s for m, s in zip(y, sigma, strict=True)]
                high = [m + s for m, s in zip(y, sigma, strict=True)]
                axes.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
        for run in alone:
            curve = run.curve(metric)
            thin = {**style, "linewidth": 0.9, "markerfacecolor": "white"}
            axes.plot(list(curve), list(curve.values()), **thin)
            state = "no common x" if run.finished else "unfinished"
            handles.append(Line2D([], [], **thin, label=f"{group}, seed {run.seed} ({state})"))
    floors = [run.last.dice_floor for run in runs if run.last.dice_floor is not None]
    if metric == "dice" and floors:
        line: dict[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 1.6}
        axes.axhline(fmean(floors), **line)
        handles.append(Line2D([], [], **line, label="random map (floor)"))
    if end := human_end(runs):
        line = {"color": "#404040", "linestyle": "--", "linewidth": 1.1}
        axes.axvline(end, **line, zorder=0.9)
        handles.append(Line2D([], [], **line, label="human budget ends"))
    axes.set(xlabel="labelled images", ylabel="Dice with the human mask" if metric == "dice" else "accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    pools = {run.data["counts"].get("train") for run in runs}
    if len(pools) == 1 and (pool := pools.pop()):
        to_share, to_count = partial(np.multiply, 100 / pool), partial(np.multiply, pool / 100)
        share = axes.secondary_xaxis("top", functions=(to_share, to_count))
        share.set_xlabel("% of the pool")
    axes.set_title(f"{'Dice' if metric == 'dice' else 'Accuracy'}, {_short(title, 40)}")
    _legend(figure, handles)
    return figure


def _styles(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """A line style for each group: colour and marker by regime, dashes by what else differs in it.

    Where there is one regime only, colour and marker tell its variants apart.
    """
    groups = by_group(runs)
    regimes = dict.fromkeys(run.regime for run in runs)
    spare = cycle(REGIME_STYLE.values())
    dashes = {regime: cycle(LINES) for regime in regimes}
    styles = {}
    for group, members in groups.items():
        regime = members[0].regime
        one_regime = len(regimes) == 1 and len(groups) > 1
        colour, marker = next(spare) if one_regime else REGIME_STYLE.get(regime, (GREY, "P"))
        styles[group] = {
            "color": colour,
            "marker": marker,
            "markersize": MARKER_SIZE.get(marker, 5.0),
            "linestyle": next(dashes[regime]),
            "linewidth": 1.8,
        }
    return styles


def scatter(runs: Sequence[Run]) -> list[Picture]:
    """AULC of accuracy against AULC of Dice, a picture for each data set whose finished runs have both."""
    parts = by_dataset([run for run in runs if run.finished and run.aulc("dice") is not None])
    return [
        picture(
            _scatter(part),
            numbered("scatter", i, len(parts)),
            f"AULC of accuracy against AULC of Dice on {dataset}, a shape for each regime, "
            "a colour for each criterion.",
        )
        for i, (dataset, part) in enumerate(parts.items())
    ]


def _scatter(runs: Sequence[Run]) -> Figure:
    regimes = list(dict.fromkeys(run.regime for run in runs))
    criteria = list(dict.fromkeys(run.criterion for run in runs))
    markers = {regime: REGIME_STYLE.get(regime, (GREY, "P"))[1] for regime in regimes}
    figure, axes = _figure()
    for members in by_group(runs).values():
        colour = CRITERION_COLOUR.get(members[0].criterion, GREY)
        marker = markers[members[0].regime]
        x = [value for run in members if (value := run.aulc("dice")) is not None]
        y = [value for run in members if (value := run.aulc("accuracy")) is not None]
        size = 9 * MARKER_SIZE.get(marker, 5.0) ** 2 / 5
        axes.scatter(x, y, s=size, color=colour, marker=marker, alpha=0.3, linewidths=0)
        axes.errorbar(
            fmean(x),
            fmean(y),
            xerr=stdev(x) if len(x) > 1 else None,
            yerr=stdev(y) if len(y) > 1 else None,
            color=colour,
            marker=marker,
            markersize=1.6 * MARKER_SIZE.get(marker, 5.0),
            markeredgecolor="white",
            markeredgewidth=0.6,
            elinewidth=1.2,
            capsize=2,
        )
        rest = [spell(name, value) for name, value in members[0].variant.items() if name != "criterion"]
        if rest:  # above and below in turn: neighbours often lie close together
            below = len(axes.texts) % 2
            place, side = (6, -5 if below else 5), "top" if below else "bottom"
            text = ", ".join(rest)
            axes.annotate(text, (fmean(x), fmean(y)), place, textcoords="offset points", va=side, fontsize=8)
    axes.margins(0.12)
    axes.set(xlabel="AULC of Dice", ylabel="AULC of accuracy", title=_short(runs[0].dataset, 40))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    shapes = [
        Line2D(
            [], [], linestyle="", color=GREY, marker=m, markersize=1.4 * MARKER_SIZE.get(m, 5.0), label=regime
        )
        for regime, m in markers.items()
    ]
    colours = [
        Line2D([], [], color=CRITERION_COLOUR.get(criterion, GREY), linewidth=5, label=criterion)
        for criterion in criteria
    ]
    blank = [Line2D([], [], linestyle="", label=" ")]
    rows = max(len(shapes), len(colours))
    _legend(figure, [*shapes, *blank * (rows - len(shapes)), *colours, *blank * (rows - len(colours))])
    return figure


def map_counts(run: Run) -> Picture:
    """Stacked bars: where the labelled images' maps come from, by round."""
    none = [r.labelled - r.human_maps - r.generated_maps - r.empty_maps for r in run.rounds]
    parts = {
        "human": [float(r.human_maps) for r in run.rounds],
        "generated": [float(r.generated_maps) for r in run.rounds],
        "empty (counts as no map)": [float(r.empty_maps) for r in run.rounds],
        "no map": [float(max(count, 0)) for count in none],
    }
    figure = _bars(run, parts, (BLUE, ORANGE, BLACK, "#c8c8c8"), "labelled images", "Saliency maps by round")
    return picture(figure, "maps", "Human, generated and empty maps of the labelled images in every round.")


def phase_seconds(run: Run) -> Picture:
    """Stacked bars: the seconds of each phase, by round."""
    phases = dict.fromkeys(phase for r in run.rounds for phase in r.timings)
    parts = {phase: [r.timings.get(phase, 0.0) for r in run.rounds] for phase in phases}
    colours = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK)
    figure = _bars(run, parts, colours, "seconds", "Time by round")
    return picture(figure, "seconds", "Seconds spent in each phase of every round.")


def _bars(run: Run, parts: dict[str, list[float]], colours: Sequence[str], ylabel: str, title: str) -> Figure:
    shown = {label: values for label, values in parts.items() if any(values)}
    figure, axes = _figure()
    x = [r.round for r in run.rounds]
    base = [0.0] * len(x)
    looks = dict(zip(parts, zip(cycle(colours), cycle(("", "///", "...", "\\\\\\", "xxx"))), strict=False))
    handles = []
    for label, values in shown.items():
        colour, hatch = looks[label]
        axes.bar(x, values, bottom=base, color=colour, hatch=hatch, width=0.8)
        handles.append(Patch(facecolor=colour, hatch=hatch, label=label))
        base = [low + value for low, value in zip(base, values, strict=True)]
    axes.set(xlabel="round", ylabel=ylabel, title=title, xlim=(x[0] - 0.8, x[-1] + 0.8))
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    axes.grid(visible=False, axis="x")
    _legend(figure, handles)
    return figure


def _figure() -> tuple[Figure, Axes]:
    """One pair of axes, wide enough for a column of print and still legible on a phone."""
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    return figure, figure.add_subplot()


def _legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend below the axes; the figure grows by its height."""
    labels = [textwrap.fill(str(handle.get_label()), 60) for handle in handles]
    columns = 1 if any(len(label) > 30 for label in labels) else 2
    lines = sum(label.count("\n") + 1 for label in labels)
    figure.set_figheight(figure.get_figheight() + 0.19 * math.ceil(lines / columns))
    figure.legend(list(handles), labels, loc="outside lower center", ncols=columns, handlelength=3)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
