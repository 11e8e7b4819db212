"""Figures that set runs against each other: AULC scatter, gains by human maps, probes, alphas, trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean, stdev

from matplotlib.lines import Line2D

from sal_fast.report.differences import BASELINE, MEASURES, NAMES, couples, gains, paired
from sal_fast.report.figures import (
    BLACK,
    GRID,
    Drawn,
    Row,
    few_ticks,
    legend,
    mark,
    mark_handle,
    new_figure,
    rows,
    short,
)
from sal_fast.report.looks import GREY, LINES, Looks, Style
from sal_fast.report.runs import Run, by_group, by_panel, fullest, split

APART = 0.025  # of the axis: marks of one x stand beside each other
Points = dict[str, list[tuple[Run, float]]]  # line -> the runs, and what each gained over b1 of its seed


def scatter(runs: Sequence[Run], looks: Looks) -> list[Row]:
    """AULC of accuracy against AULC of Dice, by data set, network and probe; one point is no figure.

    A shape stands for a regime. Where there are several criteria, a colour stands for a criterion.
    """
    parts = split(_with_dice(runs), lambda run: run.place("criterion"))
    parts = {title: part for title, part in parts.items() if len(part) > 1}
    return rows(parts, partial(_scatter, looks=looks), fullest(parts))


def _scatter(title: str, runs: Sequence[Run], looks: Looks) -> Iterator[Drawn]:
    figure, axes = new_figure(6.0, 4.6)
    criteria = split(runs, lambda run: run.compared.get("criterion", ""))
    several = len(criteria) > 1
    for part in criteria.values():
        colour = looks.criterion(part[0]) if several else {}
        trail = []
        for members in by_group(part).values():
            style = {**looks.line(members[0].line, members[0]), **colour}
            x = [value for run in members if (value := run.aulc("dice")) is not None]
            y = [value for run in members if (value := run.aulc("accuracy")) is not None]
            if len(x) > 1:
                small = {"markersize": 0.8 * style["markersize"], "linestyle": "none", "markeredgewidth": 0}
                axes.plot(x, y, **{**style, **small}, alpha=0.3)
            mark(axes, x, y, style, style["linestyle"] if several else "-")
            trail.append((fmean(x), fmean(y)))
        if several:  # dashes tell criteria apart without colours, too
            axes.plot(*zip(*sorted(trail), strict=True), **colour, linewidth=0.8, alpha=0.6, zorder=1.5)
    axes.margins(0.08)
    axes.set(xlabel="AULC of Dice", ylabel="AULC of accuracy", title=short(title, 50))
    few_ticks(axes, whole=False)
    lines = split(runs, lambda run: run.line)
    shapes = [
        mark_handle(looks.line(line, members[0]), line, GREY if several else None)
        for line, members in lines.items()
    ]
    if several:
        colours = [
            Line2D([], [], **looks.criterion(part[0]), linewidth=2, label=criterion)
            for criterion, part in criteria.items()
        ]
        blank = [Line2D([], [], linestyle="", label=" ")]
        high = max(len(shapes), len(colours))
        legend(figure, [*shapes, *blank * (high - len(shapes)), *colours, *blank * (high - len(colours))], 2)
    else:
        legend(figure, shapes)
    shown = "a shape for each regime, a colour for each criterion"
    yield "scatter", f"AULC of accuracy against AULC of Dice, {title}: {shown}.", figure


def budgets(runs: Sequence[Run], looks: Looks) -> list[Row]:
    """Dice gained over b1 against human maps, for the fullest panels that have b1: AULC and last round."""
    panels = by_panel(runs)
    parts = {
        title: points
        for title in fullest(panels)
        if all((points := {m: _gained(panels[title], m) for m in ("aulc_dice", "dice")}).values())
    }
    return rows(parts, partial(_budgets, looks=looks))


def _gained(panel: Sequence[Run], measure: str) -> Points:
    found: Points = {}
    for regime in dict.fromkeys(run.regime for run in panel if run.regime != BASELINE):
        for members, baseline in couples(panel, regime, BASELINE):
            gained = [
                (pair[0], gain)
                for pair in paired(members, baseline)
                for gain in gains([pair], MEASURES[measure])
            ]
            if gained:
                found[members[0].line] = gained
    return found


def _budgets(title: str, points: Mapping[str, Points], looks: Looks) -> Iterator[Drawn]:
    for measure, lines in points.items():
        figure, axes = new_figure()
        reach: Style = {"color": GREY, "linestyle": (0, (5, 2)), "linewidth": 1.2}
        spent = [fmean(run.last.human_maps for run, _ in some) for some in lines.values()]
        width = max(spent) or 1.0
        handles, reached = [], False
        for (line, some), at, place in zip(lines.items(), spent, _apart(spent, APART * width), strict=True):
            first, gained = some[0][0], [gain for _, gain in some]
            style = looks.line(line, first)
            mark(axes, [run.last.human_maps + place - at for run, _ in some], gained, style)
            handles.append(mark_handle(style, f"{line} (n={len(gained)})"))
            if first.regime == "b2":
                axes.axhline(fmean(gained), **reach, zorder=0.9)
                reached = True
        axes.axhline(0, color=BLACK, linewidth=0.8)
        axes.set(xlabel="human maps", ylabel=f"{NAMES[measure]}, gained over b1", title=short(title, 50))
        axes.set_xlim(-0.08 * width, 1.08 * width)
        few_ticks(axes)
        if reached:
            handles.append(Line2D([], [], **reach, label="b2, to be reached"))
        legend(figure, handles)
        alt = f"{NAMES[measure]} gained over b1 against the human maps spent, {title}."
        yield f"budget-{measure.replace('_', '-')}", alt, figure


def probes(runs: Sequence[Run], looks: Looks) -> list[Row]:
    """AULC of Dice by probe, by data set, network and criterion: a mark for each line with several probes."""
    lines = split(_with_dice(runs), lambda run: f"{run.place('probe')}, {run.line}")
    several = [part for part in lines.values() if len({run.config.probe for run in part}) > 1]
    parts = split((run for part in several for run in part), lambda run: run.place("probe"))
    return rows(parts, partial(_probes, looks=looks))


def _probes(title: str, runs: Sequence[Run], looks: Looks) -> Iterator[Drawn]:
    figure, axes = new_figure()
    names: list[str] = list(dict.fromkeys(run.config.probe for run in runs))
    lines = split(runs, lambda run: run.line)
    for i, (line, members) in enumerate(lines.items()):
        style = looks.line(line, members[0])
        for probe, part in split(members, lambda run: run.config.probe).items():
            x = names.index(probe) + 0.7 * ((i + 0.5) / len(lines) - 0.5)
            values = [value for run in part if (value := run.aulc("dice")) is not None]
            mark(axes, [x] * len(values), values, style)
    for border in range(1, len(names)):
        axes.axvline(border - 0.5, color=GRID, linewidth=0.8)
    axes.set_xticks(range(len(names)), names)
    axes.grid(visible=False, axis="x")
    axes.set(xlim=(-0.5, len(names) - 0.5), ylabel="AULC of Dice", title=short(title, 50))
    legend(figure, [mark_handle(looks.line(line, part[0]), line) for line, part in lines.items()])
    yield "probes", f"AULC of Dice by probe, {title}: a mark for each regime.", figure


def alphas(runs: Sequence[Run], looks: Looks) -> list[Row]:
    """Dice and accuracy of the last round by alpha, for each panel: the lines that have several alphas."""
    finished = [run for run in runs if run.finished]
    lines = split(finished, lambda run: f"{run.panel}, {_but_alpha(run)}")
    swept = [part for part in lines.values() if len({run.alpha for run in part}) > 1]
    parts = by_panel(run for part in swept for run in part)
    return rows(parts, partial(_alphas, looks=looks))


def _but_alpha(run: Run) -> str:
    return run.label("alpha", *run.compared)


def _alphas(title: str, runs: Sequence[Run], looks: Looks) -> Iterator[Drawn]:
    for metric in ("dice", "accuracy"):
        known = [run for run in runs if getattr(run.last, metric) is not None]
        if not known:
            continue
        figure, axes = new_figure()
        handles = []
        for line, members in split(known, _but_alpha).items():
            style = looks.line(line, members[0])
            values: dict[float, list[float]] = {}
            for run in sorted(members, key=lambda run: run.alpha):
                values.setdefault(run.alpha, []).append(getattr(run.last, metric))
            means = [fmean(some) for some in values.values()]
            sigmas = [stdev(some) if len(some) > 1 else 0.0 for some in values.values()]
            axes.errorbar(list(values), means, yerr=sigmas, **style, elinewidth=1.2, capsize=3)
            counts = sorted({len(some) for some in values.values()})
            n = "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
            handles.append(Line2D([], [], **style, label=f"{line} (n={n})"))
        axes.set(xlabel="alpha", ylabel=NAMES[metric], title=short(title, 50), xlim=(-0.03, 1.03))
        legend(figure, handles)
        yield f"alpha-{metric}", f"{metric} of the last round against alpha, {title}.", figure


def trials(runs: Sequence[Run], looks: Looks) -> list[Row]:
    """Dice of generated maps with what people then drew, by round, for each panel that tried them."""
    tried = [run for run in runs if any(one.trial_dice is not None for one in run.rounds)]
    return rows(by_panel(tried), partial(_trials, looks=looks))


def _trials(title: str, runs: Sequence[Run], looks: Looks) -> Iterator[Drawn]:
    """Draw a line for each run; the vertical line of its dashes is where its model took over."""
    figure, axes = new_figure()
    seeds = sorted({run.seed for run in runs})
    handles: dict[str, Line2D] = {}
    for run in runs:
        style = dict(looks.line(run.line, run), linewidth=1.6)
        if len(seeds) > 1:
            style["linestyle"] = LINES[seeds.index(run.seed) % len(LINES)]
        curve = run.curve("trial_dice")
        axes.plot(list(curve), list(curve.values()), **style)
        handles.setdefault(run.line, Line2D([], [], **style, label=run.line))
        if (i := run.takes_over()) is not None:
            end = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 1.0}
            axes.axvline(run.rounds[i].labelled, **end, zorder=0.9)
    dashes = [
        Line2D([], [], color=GREY, linestyle=LINES[i % len(LINES)], label=f"seed {seed}")
        for i, seed in enumerate(seeds)
    ]
    axes.set(xlabel="labelled images", ylabel="Dice with the new human maps", title=short(title, 50))
    few_ticks(axes)
    legend(figure, [*handles.values(), *(dashes if len(seeds) > 1 else [])])
    alt = f"Dice of generated maps with the human maps of the same images, by round, {title}."
    yield "trials", alt, figure


def _with_dice(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.finished and run.aulc("dice") is not None]


def _apart(places: Sequence[float], step: float) -> list[float]:
    """Set places that are within a step of each other a step apart, about their middle."""
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
