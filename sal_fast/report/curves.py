"""Learning curves; and of a single run, where its maps come from and where its time goes."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sal_fast.report.figures import Drawn, Row, legend, mean_and_sigma, new_figure, rows
from sal_fast.report.looks import BLACK, BLUE, GREY, ORANGE, SERIES, Looks, Style
from sal_fast.report.runs import Run, by_dataset, by_group, by_label, by_panel, fullest

MOST_LINES = 12
MOST_ENDS = 4
MAP_COLOURS = (BLUE, ORANGE, BLACK, "#c8c8c8")
HATCHES = ("", "///", "...", "\\\\\\", "xxx")


def learning_curves(runs: Sequence[Run], looks: Looks) -> list[Row]:
    """A row for each panel with several lines: Dice (where any run has it) and accuracy.

    The groups that are alone in their panel stand together, MOST_LINES to a row.
    """
    parts, first = _parts(runs), fullest(by_panel(runs))
    main = [title for title, part in parts.items() if part[0].panel in first]
    return rows(parts, partial(_draw, looks=looks), main)


def human_ends(runs: Sequence[Run]) -> list[int]:
    """The labelled counts after which some run gets no human map any more."""
    return sorted({run.rounds[i - 1].labelled for run in runs if (i := run.takes_over()) is not None})


def mean_curve(runs: Sequence[Run], metric: str) -> list[tuple[int, float, float]]:
    """(labelled, mean, sigma) at the labelled counts that all runs have; sigma is 0 for a single run."""
    curves = [run.curve(metric) for run in runs]
    shared = [x for x in curves[0] if all(x in curve for curve in curves)] if curves else []
    return [(x, *mean_and_sigma([curve[x] for curve in curves])) for x in shared]


def single(run: Run) -> list[Row]:
    """Two figures of one run: the map sources of its labelled images, and the seconds of its phases."""
    maps = {
        "human": [r.human_maps for r in run.rounds],
        "generated": [r.generated_maps for r in run.rounds],
        "empty (counts as no map)": [r.empty_maps for r in run.rounds],
        "no map": [max(r.labelled - r.human_maps - r.generated_maps - r.empty_maps, 0) for r in run.rounds],
    }
    phases = dict.fromkeys(phase for r in run.rounds for phase in r.timings)
    seconds = {phase: [r.timings.get(phase, 0.0) for r in run.rounds] for phase in phases}

    def draw(title: str, run: Run) -> Iterator[Drawn]:
        alt = "Human, generated and empty maps of the labelled images in every round."
        yield "maps", alt, _bars(run, maps, MAP_COLOURS, "labelled images", "Saliency maps by round")
        if phases:
            alt = "Seconds spent in each phase of every round."
            yield "seconds", alt, _bars(run, seconds, SERIES, "seconds", "Time by round")

    return rows({run.name: run}, draw)


def _parts(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Title -> the runs of a row, in the order of their panels."""
    panels = by_panel(runs)
    parts = {title: part for title, part in panels.items() if len(by_group(part)) > 1}
    alone = by_dataset(run for title, part in panels.items() if title not in parts for run in part)
    for dataset, some in alone.items():
        name, groups = f"{dataset}, other settings" if parts else dataset, [*by_panel(some).values()]
        heaps = [groups[i : i + MOST_LINES] for i in range(0, len(groups), MOST_LINES)]
        for i, heap in enumerate(heaps):
            title = name if len(heaps) == 1 else f"{name} ({i + 1})"
            parts[heap[0][0].panel if len(heap) == 1 else title] = [run for part in heap for run in part]
    order = list(panels)
    return dict(sorted(parts.items(), key=lambda entry: order.index(entry[1][0].panel)))


def _draw(title: str, runs: Sequence[Run], looks: Looks) -> Iterator[Drawn]:
    pools = {run.record["data"]["counts"].get("train") for run in runs}
    groups = by_label(runs)
    for metric, ylabel in (("dice", "Dice with the human mask"), ("accuracy", "accuracy")):
        if not any(run.curve(metric) for run in runs):
            continue
        figure, axes = new_figure(f"{metric.title()}, {title}", "labelled images", ylabel)
        for label, members in groups.items():
            drawn = [run for run in members if run.curve(metric)]
            style = looks.line(label, members[0])
            _group(axes, drawn, metric, label, style, 0.18 if len(groups) < 5 else 0.1)
        _references(axes, runs, metric)
        if len(pools) == 1 and (pool := next(iter(pools))):
            to_share, to_count = partial(np.multiply, 100 / pool), partial(np.multiply, pool / 100)
            share = axes.secondary_xaxis("top", functions=(to_share, to_count))
            share.set_xlabel("% of the pool")
        legend(figure)
        alt = f"Learning curves, {title}: {metric} against the number of labelled images."
        yield f"curves-{metric}", alt, figure


def _group(axes: Axes, runs: Sequence[Run], metric: str, label: str, style: Style, opacity: float) -> None:
    """Draw the mean of the finished runs with a band of one sigma, and the others thin."""
    finished = [run for run in runs if run.finished]
    mean = mean_curve(finished, metric)
    if mean:
        x, y, sigma = (np.array(column) for column in zip(*mean, strict=True))
        axes.plot(x, y, **style, label=f"{label} (n={len(finished)})")
        if len(finished) > 1:
            axes.fill_between(x, y - sigma, y + sigma, color=style["color"], alpha=opacity, linewidth=0)
    thin = {**style, "linewidth": 0.9, "markerfacecolor": "white"}
    for run in runs:
        if not (mean and run.finished):
            curve, state = run.curve(metric), "no common x" if run.finished else "unfinished"
            axes.plot([*curve], [*curve.values()], **thin, label=f"{label}, seed {run.seed} ({state})")


def _references(axes: Axes, runs: Sequence[Run], metric: str) -> None:
    """Draw the floor of Dice and the ends of the human budgets."""
    floors = [run.last.dice_floor for run in runs if run.last.dice_floor is not None]
    if metric == "dice" and floors:
        axes.axhline(fmean(floors), color=GREY, linestyle=":", linewidth=1.6, label="random map (floor)")
    ends = human_ends(runs)
    label = "human budget ends" if len(ends) == 1 else "a human budget ends"
    if len(ends) <= MOST_ENDS:
        for end in ends:
            axes.axvline(end, color=GREY, linestyle="--", linewidth=1.1, zorder=0.9, label=label)


def _bars(run: Run, parts: dict[str, list[Any]], colours: Sequence[str], ylabel: str, title: str) -> Figure:
    """Stacked bars by round; a part has the same colour and hatch whatever other parts are empty."""
    figure, axes = new_figure(title, "round", ylabel)
    x = [r.round for r in run.rounds]
    base = np.zeros(len(x))
    for (label, values), colour, hatch in zip(parts.items(), cycle(colours), cycle(HATCHES)):
        if any(values):
            axes.bar(x, values, bottom=base, color=colour, hatch=hatch, width=0.8, label=label)
            base += values
    axes.set_xlim(x[0] - 0.8, x[-1] + 0.8)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    axes.grid(visible=False, axis="x")
    legend(figure)
    return figure
