"""Figures that set runs against each other: gains by human maps, probes, alphas, trials of the generator."""

from collections.abc import Sequence
from itertools import cycle
from statistics import fmean, stdev

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sal_fast.report.differences import MEASURES, couples, gains, paired
from sal_fast.report.figures import (
    BLACK,
    GREY,
    LINES,
    REGIME_STYLE,
    Row,
    Style,
    legend,
    mark,
    mark_handle,
    new_figure,
    numbered,
    picture,
    short,
    styles,
)
from sal_fast.report.runs import Run, by_group, by_panel, fullest, split

NAMES = {
    "aulc_dice": "AULC Dice",
    "aulc_accuracy": "AULC accuracy",
    "dice": "Dice, last round",
    "accuracy": "accuracy, last round",
}
APART = 0.025  # of the axis: marks of one x stand beside each other


def budgets(runs: Sequence[Run]) -> list[Row]:
    """Dice gained over b1 against human maps, for the fullest panels that have b1: AULC, last round."""
    panels = by_panel(runs)
    look = styles(runs)
    drawn = []
    for title in fullest(runs):
        figures = [
            (measure, _budget(panels[title], measure, title, look)) for measure in ("aulc_dice", "dice")
        ]
        if all(figure for _, figure in figures):
            drawn.append((title, figures))
    return [
        Row(
            title,
            [
                picture(
                    figure,
                    numbered(f"budget-{measure.replace('_', '-')}", i, len(drawn)),
                    f"{NAMES[measure]} gained over b1 against the human maps spent, {title}.",
                )
                for measure, figure in figures
                if figure
            ],
        )
        for i, (title, figures) in enumerate(drawn)
    ]


def _budget(panel: Sequence[Run], measure: str, title: str, look: dict[str, Style]) -> Figure | None:
    points: dict[str, list[tuple[int, float]]] = {}  # line -> human maps and gain of each seed
    for regime in dict.fromkeys(run.regime for run in panel if run.regime != "b1"):
        for members, b1 in couples(panel, regime, "b1"):
            found = [
                (pair[0].last.human_maps, gain)
                for pair in paired(members, b1)
                for gain in gains([pair], MEASURES[measure])
            ]
            if found:
                points[members[0].line] = found
    if not points:
        return None
    figure, axes = new_figure()
    spent = [fmean(maps for maps, _ in some) for some in points.values()]
    width = max(spent) or 1.0
    aside = [moved - maps for moved, maps in zip(_apart(spent, APART * width), spent, strict=True)]
    reach: Style = {"color": GREY, "linestyle": (0, (5, 2)), "linewidth": 1.2}
    handles = []
    for (line, some), shift in zip(points.items(), aside, strict=True):
        maps, gained = [m + shift for m, _ in some], [gain for _, gain in some]
        if _is_b2(line):
            axes.axhline(fmean(gained), **reach, zorder=0.9)
        mark(axes, maps, gained, look[line])
        handles.append(mark_handle(look[line], f"{line} (n={len(gained)})"))
    axes.axhline(0, color=BLACK, linewidth=0.8)
    axes.set(xlabel="human maps", ylabel=f"{NAMES[measure]}, gained over b1", title=short(title, 50))
    axes.set_xlim(-0.08 * width, 1.08 * width)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    if any(map(_is_b2, points)):
        handles.append(Line2D([], [], **reach, label="b2, to be reached"))
    legend(figure, handles)
    return figure


def _is_b2(line: str) -> bool:
    return line.partition(", ")[0] == "b2"


def probes(runs: Sequence[Run]) -> list[Row]:
    """AULC of Dice by probe, by data set, network and criterion: a mark a line that has several probes."""
    finished = [run for run in runs if run.finished and run.aulc("dice") is not None]
    lines = split(finished, lambda run: f"{run.place('probe')}, {run.line}")
    several = [part for part in lines.values() if len({run.config["probe"] for run in part}) > 1]
    parts = split((run for part in several for run in part), lambda run: run.place("probe"))
    look = styles(runs)
    return [
        Row(
            title,
            [
                picture(
                    _probes(part, title, look),
                    numbered("probes", i, len(parts)),
                    f"AULC of Dice by probe, {title}: a mark for each regime.",
                )
            ],
        )
        for i, (title, part) in enumerate(parts.items())
    ]


def _probes(runs: Sequence[Run], title: str, look: dict[str, Style]) -> Figure:
    figure, axes = new_figure()
    names = list(dict.fromkeys(run.config["probe"] for run in runs))
    lines = list(dict.fromkeys(run.line for run in runs))
    for members in by_group(runs).values():
        line = members[0].line
        x = names.index(members[0].config["probe"]) + 0.7 * ((lines.index(line) + 0.5) / len(lines) - 0.5)
        values = [value for run in members if (value := run.aulc("dice")) is not None]
        mark(axes, [x] * len(values), values, look[line])
    for border in range(1, len(names)):
        axes.axvline(border - 0.5, color="#e6e6e6", linewidth=0.8)
    axes.set_xticks(range(len(names)), names)
    axes.grid(visible=False, axis="x")
    axes.set(xlim=(-0.5, len(names) - 0.5), ylabel="AULC of Dice", title=short(title, 50))
    legend(figure, [mark_handle(look[line], line) for line in lines])
    return figure


def alphas(runs: Sequence[Run]) -> list[Row]:
    """Dice and accuracy of the last round against alpha, a line for each group whose runs differ in alpha."""
    finished = [run for run in runs if run.finished and run.alpha is not None]
    groups = split(finished, lambda run: f"{run.dataset}, {run.label('alpha')}")
    swept = [part for part in groups.values() if len({run.alpha for run in part}) > 1]
    parts = split((run for part in swept for run in part), lambda run: run.dataset)
    rows = []
    for i, (dataset, part) in enumerate(parts.items()):
        metrics = [m for m in ("dice", "accuracy") if any(getattr(run.last, m) is not None for run in part)]
        pictures = [
            picture(
                _alphas(part, metric, dataset),
                numbered(f"alpha-{metric}", i, len(parts)),
                f"{metric} of the last round against alpha on {dataset}.",
            )
            for metric in metrics
        ]
        rows.append(Row(dataset, pictures))
    return rows


def _alphas(runs: Sequence[Run], metric: str, title: str) -> Figure:
    figure, axes = new_figure()
    labels = {run.group: run.label("alpha") for run in runs}
    look, handles = styles(runs, labels), []
    for line, members in split(runs, lambda run: labels[run.group]).items():
        style = look[line]
        values: dict[float, list[float]] = {}
        for run in sorted(members, key=lambda run: run.alpha or 0.0):
            if run.alpha is not None and (value := getattr(run.last, metric)) is not None:
                values.setdefault(run.alpha, []).append(value)
        means = {alpha: fmean(some) for alpha, some in values.items()}
        sigmas = [stdev(some) if len(some) > 1 else 0.0 for some in values.values()]
        axes.errorbar(list(means), list(means.values()), yerr=sigmas, **style, elinewidth=1.2, capsize=3)
        n = sorted({len(some) for some in values.values()})
        handles.append(Line2D([], [], **style, label=f"{line} (n={'–'.join(map(str, {n[0]: 0, n[-1]: 0}))})"))
    axes.set(xlabel="alpha", ylabel=NAMES[metric], title=short(title, 50), xlim=(-0.03, 1.03))
    legend(figure, handles)
    return figure


def trials(runs: Sequence[Run]) -> list[Row]:
    """Dice of generated maps with what people then drew, by round, for each panel that tried them."""
    tried = [run for run in runs if any(r.trial_dice is not None for r in run.rounds)]
    parts = by_panel(tried)
    return [
        Row(
            title,
            [
                picture(
                    _trials(part, title),
                    numbered("trials", i, len(parts)),
                    f"Dice of generated maps with the human maps of the same images, by round, {title}.",
                )
            ],
        )
        for i, (title, part) in enumerate(parts.items())
    ]


def _trials(runs: Sequence[Run], title: str) -> Figure:
    """A line a run, as each finds an end of its own: the vertical line is where its model took over."""
    figure, axes = new_figure()
    handles = []
    looks = cycle(zip(cycle(REGIME_STYLE.values()), LINES, strict=False))
    for run, ((colour, marker), dashes) in zip(runs, looks, strict=False):
        style: Style = {"color": colour, "marker": marker, "linestyle": dashes, "linewidth": 1.6}
        curve = run.curve("trial_dice")
        axes.plot(list(curve), list(curve.values()), **style)
        handles.append(Line2D([], [], **style, label=f"{run.line}, seed {run.seed}"))
        if (i := run.takes_over()) is not None:
            axes.axvline(run.rounds[i].labelled, color=colour, linestyle=dashes, linewidth=1.0, zorder=0.9)
    axes.set(xlabel="labelled images", ylabel="Dice with the new human maps", title=short(title, 50))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    legend(figure, handles)
    return figure


def _apart(places: Sequence[float], step: float) -> list[float]:
    """Places that are within a step of each other, set a step apart about their middle."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    cluster: list[int] = []
    for i in [*order, -1]:
        if i >= 0 and (not cluster or places[i] - places[cluster[-1]] < step):
            cluster.append(i)
            continue
        middle = fmean(places[k] for k in cluster)
        for position, k in enumerate(cluster):
            moved[k] = middle + (position - (len(cluster) - 1) / 2) * step
        cluster = [i]
    return moved
