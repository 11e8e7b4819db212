"""Figures that set runs against each other: AULC scatter, gains by human maps, probes, alphas, trials."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes

from sal_fast.experiment.budget import AUTO
from sal_fast.experiment.stopping import AGREE, GAIN
from sal_fast.report.differences import NAMES, gains, over_baseline
from sal_fast.report.figures import Drawn, Row, legend, mark, mark_entry, mean_and_sigma, new_figure, rows
from sal_fast.report.looks import BLACK, GREY, GRID, LINES, Looks, Style, criterion_of
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
    figure, axes = new_figure(title, "AULC of Dice", "AULC of accuracy", (6.0, 4.6), whole=False)
    criteria = split(runs, criterion_of)
    several = len(criteria) > 1
    for part in criteria.values():
        colour = looks.criterion(part[0]) if several else {}
        trail = []
        for members in by_group(part).values():
            style = {**looks.line(members[0].line, members[0]), **colour}
            x, y = _aulcs(members, "dice"), _aulcs(members, "accuracy")
            if len(x) > 1:
                small = {"markersize": 0.8 * style["markersize"], "linestyle": "none", "markeredgewidth": 0}
                axes.plot(x, y, **{**style, **small}, alpha=0.3)
            mark(axes, x, y, style, style["linestyle"] if several else "-")
            trail.append((fmean(x), fmean(y)))
        if several:  # dashes tell criteria apart without colours, too
            axes.plot(*zip(*sorted(trail), strict=True), **colour, linewidth=0.8, alpha=0.6, zorder=1.5)
    axes.margins(0.08)
    shapes = split(runs, lambda run: run.line)
    for line, members in shapes.items():
        mark_entry(axes, looks.line(line, members[0]), line, GREY if several else None)
    if several:  # the shapes and the colours are a column of the legend each, of one height
        _blanks(axes, len(criteria) - len(shapes))
        for criterion, part in criteria.items():
            axes.plot([], [], **looks.criterion(part[0]), linewidth=2, label=criterion)
        _blanks(axes, len(shapes) - len(criteria))
    legend(figure, 2 if several else None)
    shown = "a shape for each regime, a colour for each criterion"
    yield "scatter", f"AULC of accuracy against AULC of Dice, {title}: {shown}.", figure


def _blanks(axes: Axes, count: int) -> None:
    """Add empty entries to the legend."""
    for i in range(count):
        axes.plot([], [], color=GREY, linestyle="", label=" " * (i + 1))


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
    return {
        pairs[0][0].line: gained
        for pairs in over_baseline(panel)
        if (gained := [(pair[0], gain) for pair in pairs for gain in gains([pair], measure)])
    }


def _budgets(title: str, points: Mapping[str, Points], looks: Looks) -> Iterator[Drawn]:
    for measure, lines in points.items():
        figure, axes = new_figure(title, "human maps", f"{NAMES[measure]}, gained over b1")
        spent = [fmean(run.last.human_maps for run, _ in some) for some in lines.values()]
        width = max(spent) or 1.0
        for (line, some), at, place in zip(lines.items(), spent, _apart(spent, APART * width), strict=True):
            gained = [gain for _, gain in some]
            style = looks.line(line, some[0][0])
            mark(axes, [run.last.human_maps + place - at for run, _ in some], gained, style)
            mark_entry(axes, style, f"{line} (n={len(gained)})")
        for some in lines.values():
            if some[0][0].regime == "b2":
                reach: Style = {"linestyle": (0, (5, 2)), "linewidth": 1.2, "zorder": 0.9}
                height = fmean(gain for _, gain in some)
                axes.axhline(height, color=GREY, **reach, label="b2, to be reached")
        axes.axhline(0, color=BLACK, linewidth=0.8)
        axes.set_xlim(-0.08 * width, 1.08 * width)
        legend(figure)
        alt = f"{NAMES[measure]} gained over b1 against the human maps spent, {title}."
        yield f"budget-{measure.replace('_', '-')}", alt, figure


def probes(runs: Sequence[Run], looks: Looks) -> list[Row]:
    """AULC of Dice by probe, by data set, network and criterion: a mark for each line with several probes."""
    parts = _varied(_with_dice(runs), "probe", lambda run: run.place("probe"))
    return rows(parts, partial(_probes, looks=looks))


def _probes(title: str, runs: Sequence[Run], looks: Looks) -> Iterator[Drawn]:
    figure, axes = new_figure(title, ylabel="AULC of Dice")
    names = [*split(runs, lambda run: run.config.probe)]
    lines = split(runs, lambda run: run.line)
    for i, (line, members) in enumerate(lines.items()):
        style = looks.line(line, members[0])
        for probe, part in split(members, lambda run: run.config.probe).items():
            x = names.index(probe) + 0.7 * ((i + 0.5) / len(lines) - 0.5)
            mark(axes, [x] * len(part), _aulcs(part, "dice"), style)
        mark_entry(axes, style, line)
    for border in range(1, len(names)):
        axes.axvline(border - 0.5, color=GRID, linewidth=0.8)
    axes.set_xticks(range(len(names)), names)
    axes.grid(visible=False, axis="x")
    axes.set_xlim(-0.5, len(names) - 0.5)
    legend(figure)
    yield "probes", f"AULC of Dice by probe, {title}: a mark for each regime.", figure


def alphas(runs: Sequence[Run], looks: Looks) -> list[Row]:
    """Dice and accuracy of the last round by alpha, for each panel: the lines that have several alphas."""
    parts = _varied([run for run in runs if run.finished], "alpha", lambda run: run.panel)
    return rows(parts, partial(_alphas, looks=looks))


def _alphas(title: str, runs: Sequence[Run], looks: Looks) -> Iterator[Drawn]:
    for metric in ("dice", "accuracy"):
        known = [run for run in runs if getattr(run.last, metric) is not None]
        if not known:
            continue
        figure, axes = new_figure(title, "alpha", NAMES[metric], whole=False)
        for line, members in split(known, lambda run: run.label("alpha", *run.compared)).items():
            style = looks.line(line, members[0])
            values: dict[float, list[float]] = {}
            for run in sorted(members, key=lambda run: run.alpha):
                values.setdefault(run.alpha, []).append(getattr(run.last, metric))
            means, sigmas = zip(*map(mean_and_sigma, values.values()), strict=True)
            axes.errorbar([*values], means, yerr=sigmas, **style, elinewidth=1.2, capsize=3)
            counts = sorted({len(some) for some in values.values()})
            n = "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
            axes.plot([], [], **style, label=f"{line} (n={n})")
        axes.set_xlim(-0.03, 1.03)
        legend(figure)
        yield f"alpha-{metric}", f"{metric} of the last round against alpha, {title}.", figure


def trials(runs: Sequence[Run], looks: Looks) -> list[Row]:
    """Dice of generated maps with what people then drew, by round, for each panel that tried them."""
    tried = [run for run in runs if any(one.trial_dice is not None for one in run.rounds)]
    return rows(by_panel(tried), partial(_trials, looks=looks))


def _trials(title: str, runs: Sequence[Run], looks: Looks) -> Iterator[Drawn]:
    """Draw a line for each run; the vertical line of its dashes is where its model took over."""
    figure, axes = new_figure(title, "labelled images", "Dice with the new human maps")
    dashes = dict(zip(sorted({run.seed for run in runs}), itertools.cycle(LINES), strict=False))
    for run in runs:
        style = dict(looks.line(run.line, run), linewidth=1.6)
        if len(dashes) > 1:
            style["linestyle"] = dashes[run.seed]
        curve = run.curve("trial_dice")
        axes.plot([*curve], [*curve.values()], **style, label=run.line)
        if (i := run.takes_over()) is not None:
            end = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 1.0}
            axes.axvline(run.rounds[i].labelled, **end, zorder=0.9)
    if len(dashes) > 1:
        for seed, linestyle in dashes.items():
            axes.plot([], [], color=GREY, linestyle=linestyle, label=f"seed {seed}")
    legend(figure)
    alt = f"Dice of generated maps with the human maps of the same images, by round, {title}."
    yield "trials", alt, figure


def endings(runs: Sequence[Run], looks: Looks) -> list[Row]:
    """Draw what decided when labelling ends (`--stop-fraction auto`), for each panel with such runs."""
    asked = [run for run in runs if run.config.stop_fraction == AUTO]
    return rows(by_panel(asked), partial(_endings, looks=looks))


def _endings(title: str, runs: Sequence[Run], looks: Looks) -> Iterator[Drawn]:
    """Draw kappa and the expected gain, a line for each run. A dot is where the rule ended labelling."""
    for metric, name, limit in (
        ("stop_kappa", "agreement with the round before (kappa)", AGREE),
        ("expected_gain", "accuracy that the rest would gain", GAIN),
    ):
        figure, axes = new_figure(title, "labelled images", name, whole=False)
        for run in runs:
            style = dict(looks.line(run.line, run), linewidth=1.6)
            curve = run.curve(metric)
            axes.plot([*curve], [*curve.values()], **style, label=f"{run.line}, seed {run.seed}")
            if run.last.stopped and curve:
                axes.plot([run.last.labelled], [curve[run.last.labelled]], "o", color=BLACK, zorder=3)
        axes.axhline(limit, color=GREY, linewidth=1.0, linestyle="--", label=f"limit, {limit:g}")
        legend(figure)
        yield f"ending-{metric.replace('_', '-')}", f"{name} by labelled images, {title}.", figure


def _varied(runs: Sequence[Run], option: str, place: Callable[[Run], str]) -> dict[str, list[Run]]:
    """By place, the runs of the lines that have several values of an option."""
    lines = split(runs, lambda run: f"{place(run)}, {run.label(option, *run.compared)}").values()
    several = [part for part in lines if len({run.setting(option) for run in part}) > 1]
    return split((run for part in several for run in part), place)


def _with_dice(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.finished and run.aulc("dice") is not None]


def _aulcs(runs: Sequence[Run], metric: str) -> list[float]:
    return [value for run in runs if (value := run.aulc(metric)) is not None]


def _apart(places: Sequence[float], step: float) -> list[float]:
    """Set places that are within a step of each other a step apart, about their middle."""
    moved = np.array(places, dtype=float)
    order = moved.argsort(kind="stable")
    for heap in np.split(order, 1 + np.flatnonzero(np.diff(moved[order]) >= step)):
        moved[heap] = moved[heap].mean() + step * (np.arange(len(heap)) - (len(heap) - 1) / 2)
    return moved.tolist()
