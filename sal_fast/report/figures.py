"""The figures drawn from the rounds: learning curves, AULC scatter, maps and seconds by round.

A panel holds the runs of one data set, criterion, network and probe; its groups are its lines.
"""

import io
import math
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
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

from sal_fast.report.runs import Run, by_group, by_panel, fullest, split

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
MOST_ENDS = 4
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))

FILLS: tuple[Any, ...] = ("full", "none", "left", "bottom", "right", "top")
Style = dict[str, Any]

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


@dataclass(frozen=True)
class Row:
    """Figures that belong together; `main`: those to see first."""

    title: str
    pictures: list[Picture]
    main: bool = True


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


def learning_curves(runs: Sequence[Run]) -> list[Row]:
    """A row for each panel with several lines: Dice (where any run has it) and accuracy.

    The groups that are alone in their panel stand together, MOST_LINES to a row.
    """
    panels = by_panel(runs)
    crowds = {title: part for title, part in panels.items() if len(by_group(part)) > 1}
    alone = split((run for run in runs if run.panel not in crowds), lambda run: run.dataset)
    look = styles([run for part in crowds.values() for run in part])
    parts = [(title, part, {run.group: run.line for run in part}, look) for title, part in crowds.items()]
    for dataset, rest in alone.items():
        groups = iter(by_group(rest).values())
        while some := list(islice(groups, MOST_LINES)):
            part = [run for members in some for run in members]
            title = part[0].panel if len(some) == 1 else f"{dataset}, other settings" if crowds else dataset
            labels = {run.group: run.line if len(some) == 1 else run.group for run in part}
            parts.append((title, part, labels, styles(part, labels)))
    parts.sort(key=lambda entry: list(panels).index(entry[1][0].panel))
    first = fullest(runs)
    rows = []
    for i, (title, part, labels, look) in enumerate(parts):
        metrics = [m for m in ("dice", "accuracy") if any(run.curve(m) for run in part)]
        pictures = [
            picture(
                _curves(part, metric, title, labels, look),
                numbered(f"curves-{metric}", i, len(parts)),
                f"Learning curves, {title}: {metric} against the number of labelled images.",
            )
            for metric in metrics
        ]
        rows.append(Row(title, pictures, part[0].panel in first))
    return rows


def human_ends(runs: Sequence[Run]) -> list[int]:
    """The labelled counts after which some run gets no human map any more."""
    return sorted({run.rounds[i - 1].labelled for run in runs if (i := run.takes_over()) is not None})


def mean_curve(runs: Sequence[Run], metric: str) -> list[tuple[int, float, float]]:
    """(labelled, mean, sigma) at the labelled counts that all runs have; sigma is 0 for a single run."""
    curves = [run.curve(metric) for run in runs]
    shared = [x for x in curves[0] if all(x in curve for curve in curves)] if curves else []
    columns = [(x, [curve[x] for curve in curves]) for x in shared]
    return [(x, fmean(values), stdev(values) if len(values) > 1 else 0.0) for x, values in columns]


def _curves(
    runs: Sequence[Run], metric: str, title: str, labels: dict[str, str], look: dict[str, Style]
) -> Figure:
    handles = []
    figure, axes = new_figure()
    for group, members in by_group(runs).items():
        label, style = labels[group], look[labels[group]]
        drawn = [run for run in members if run.curve(metric)]
        finished = [run for run in drawn if run.finished]
        mean = mean_curve(finished, metric)
        alone = [run for run in drawn if not run.finished] if mean else drawn
        if mean:
            x, y, sigma = (list(column) for column in zip(*mean, strict=True))
            axes.plot(x, y, **style)
            handles.append(Line2D([], [], **style, label=f"{label} (n={len(finished)})"))
            if len(finished) > 1:
                low = [m - s for m, s in zip(y, sigma, strict=True)]
                high = [m + s for m, s in zip(y, sigma, strict=True)]
                axes.fill_between(
                    x, low, high, color=style["color"], alpha=0.18 if len(labels) < 5 else 0.1, linewidth=0
                )
        for run in alone:
            curve = run.curve(metric)
            thin = {**style, "linewidth": 0.9, "markerfacecolor": "white"}
            axes.plot(list(curve), list(curve.values()), **thin)
            state = "no common x" if run.finished else "unfinished"
            handles.append(Line2D([], [], **thin, label=f"{label}, seed {run.seed} ({state})"))
    floors = [run.last.dice_floor for run in runs if run.last.dice_floor is not None]
    if metric == "dice" and floors:
        line: dict[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 1.6}
        axes.axhline(fmean(floors), **line)
        handles.append(Line2D([], [], **line, label="random map (floor)"))
    ends = human_ends(runs)
    if 0 < len(ends) <= MOST_ENDS:
        line = {"color": "#404040", "linestyle": "--", "linewidth": 1.1}
        for end in ends:
            axes.axvline(end, **line, zorder=0.9)
        label = "human budget ends" if len(ends) == 1 else "a human budget ends"
        handles.append(Line2D([], [], **line, label=label))
    axes.set(xlabel="labelled images", ylabel="Dice with the human mask" if metric == "dice" else "accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    pools = {run.data["counts"].get("train") for run in runs}
    if len(pools) == 1 and (pool := pools.pop()):
        to_share, to_count = partial(np.multiply, 100 / pool), partial(np.multiply, pool / 100)
        share = axes.secondary_xaxis("top", functions=(to_share, to_count))
        share.set_xlabel("% of the pool")
    axes.set_title(f"{'Dice' if metric == 'dice' else 'Accuracy'}, {short(title, 40)}")
    legend(figure, handles)
    return figure


def styles(runs: Sequence[Run], labels: dict[str, str] | None = None) -> dict[str, Style]:
    """Label of a line -> its style: colour and marker by regime, dashes and filling by what else differs.

    Where there is one regime only, colour and marker tell its variants apart.
    """
    lines = split(runs, lambda run: labels[run.group] if labels else run.line)
    regimes = dict.fromkeys(run.regime for run in runs)
    one_regime = len(regimes) == 1 and len(lines) > 1
    spare = cycle(REGIME_STYLE.values())
    variants = {regime: cycle(zip(LINES, FILLS, strict=True)) for regime in regimes}
    look: dict[str, Style] = {}
    for line, members in lines.items():
        regime = members[0].regime
        colour, marker = next(spare) if one_regime else REGIME_STYLE.get(regime, (GREY, "P"))
        dashes, fill = next(variants[regime])
        look[line] = {
            "color": colour,
            "marker": marker,
            "markersize": MARKER_SIZE.get(marker, 5.0),
            "fillstyle": "full" if one_regime else fill,
            "markerfacecoloralt": "white",
            "linestyle": dashes,
            "linewidth": 1.8,
        }
    return look


def scatter(runs: Sequence[Run]) -> list[Row]:
    """AULC of accuracy against AULC of Dice, by data set, network and probe; one point is no figure."""
    finished = [run for run in runs if run.finished and run.aulc("dice") is not None]
    look = styles(runs)
    parts = split(finished, lambda run: run.place("criterion"))
    parts = {title: part for title, part in parts.items() if len(by_group(part)) > 1 or len(part) > 1}
    most: Counter[str] = Counter()
    for part in parts.values():
        most[part[0].dataset] = max(most[part[0].dataset], len(by_group(part)))
    return [
        Row(
            title,
            [
                picture(
                    _scatter(part, title, look),
                    numbered("scatter", i, len(parts)),
                    f"AULC of accuracy against AULC of Dice, {title}: a shape for each regime, "
                    "a colour for each criterion.",
                )
            ],
            len(by_group(part)) == most[part[0].dataset],
        )
        for i, (title, part) in enumerate(parts.items())
    ]


def _scatter(runs: Sequence[Run], title: str, all_looks: dict[str, Style]) -> Figure:
    look = {run.line: all_looks[run.line] for run in runs}
    criteria = list(dict.fromkeys(run.criterion for run in runs))
    dashes = dict(zip(criteria, cycle(LINES), strict=False))
    figure, axes = new_figure(6.0, 4.6)
    trails: dict[str, list[tuple[float, float]]] = {}
    for members in by_group(runs).values():
        style = look[members[0].line]
        if len(criteria) > 1:
            style = {**style, "color": CRITERION_COLOUR.get(members[0].criterion, GREY)}
        x = [value for run in members if (value := run.aulc("dice")) is not None]
        y = [value for run in members if (value := run.aulc("accuracy")) is not None]
        if len(x) > 1:
            small = {"markersize": 0.8 * style["markersize"], "linestyle": "none", "markeredgewidth": 0}
            axes.plot(x, y, **{**style, **small}, alpha=0.3)
        mark(axes, x, y, style, dashes[members[0].criterion])
        trails.setdefault(members[0].criterion, []).append((fmean(x), fmean(y)))
    if len(criteria) > 1:  # tells criteria apart without colours, too
        for criterion, points in trails.items():
            colour = CRITERION_COLOUR.get(criterion, GREY)
            trail = {"color": colour, "linestyle": dashes[criterion], "linewidth": 0.8, "alpha": 0.6}
            axes.plot(*zip(*sorted(points), strict=True), **trail, zorder=1.5)
    axes.margins(0.08)
    axes.set(xlabel="AULC of Dice", ylabel="AULC of accuracy", title=short(title, 50))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    shapes = [mark_handle(style, line, GREY if len(criteria) > 1 else None) for line, style in look.items()]
    if len(criteria) == 1:
        legend(figure, shapes)
        return figure
    colours = [
        Line2D(
            [],
            [],
            color=CRITERION_COLOUR.get(criterion, GREY),
            linestyle=dashes[criterion],
            linewidth=2,
            label=criterion,
        )
        for criterion in criteria
    ]
    blank = [Line2D([], [], linestyle="", label=" ")]
    rows = max(len(shapes), len(colours))
    legend(figure, [*shapes, *blank * (rows - len(shapes)), *colours, *blank * (rows - len(colours))], 2)
    return figure


def mark(axes: Axes, x: Sequence[float], y: Sequence[float], style: Style, dashes: Any = "-") -> None:
    """The mean of points with one standard deviation each way, where there are two or more."""
    size = 1.6 * style["markersize"]
    edge = {"markeredgecolor": "white" if style["fillstyle"] == "full" else style["color"]}
    drawn = axes.errorbar(
        fmean(x),
        fmean(y),
        xerr=stdev(x) if len(x) > 1 and min(x) < max(x) else None,
        yerr=stdev(y) if len(y) > 1 else None,
        **{**style, "linestyle": "none", "markersize": size, "markeredgewidth": 0.8, **edge},
        elinewidth=1.2,
        capsize=2,
        zorder=3,
    )
    for bar in drawn.lines[2]:
        bar.set_linestyle(dashes)


def mark_handle(style: Style, label: str, colour: str | None = None) -> Line2D:
    size = 1.4 * style["markersize"]
    changed = {"linestyle": "", "markersize": size, "color": colour or style["color"]}
    return Line2D([], [], **{**style, **changed}, label=label)


def alone(run: Run) -> list[Row]:
    """What is of interest of one run by itself."""
    seconds = [phase_seconds(run)] if any(r.timings for r in run.rounds) else []
    return [Row(run.name, [map_counts(run), *seconds])]


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
    figure, axes = new_figure()
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
    legend(figure, handles)
    return figure


def new_figure(width: float = 5.2, height: float = 3.8) -> tuple[Figure, Axes]:
    """One pair of axes, wide enough for a column of print and still legible on a phone."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def legend(figure: Figure, handles: Sequence[Artist], columns: int | None = None) -> None:
    """A legend below the axes; the figure grows by its height."""
    if columns is None:
        columns = 1 if any(len(str(handle.get_label())) > 30 for handle in handles) else 2
    labels = [textwrap.fill(str(handle.get_label()), 60 // columns) for handle in handles]
    # The columns are filled one after the other, each as high as its own lines.
    high = math.ceil(len(labels) / columns)
    lines = [sum(t.count("\n") + 1 for t in labels[i : i + high]) for i in range(0, len(labels), high)]
    figure.set_figheight(figure.get_figheight() + 0.19 * max(lines, default=0))
    if handles:
        figure.legend(list(handles), labels, loc="outside lower center", ncols=columns, handlelength=3)


def short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
