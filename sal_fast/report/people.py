"""The sentences and the figure on people: the time of their answers, what they saved, how far they agree."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from sal_fast.experiment.record import People, RunFolder
from sal_fast.people.agreement import Agreement
from sal_fast.people.answers import ANSWER_KINDS, Answers, Step, answer_kind
from sal_fast.people.saved import FEW, Saved
from sal_fast.report.figures import Drawn, Row, new_figure, rows
from sal_fast.report.looks import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from sal_fast.report.page import duration, number
from sal_fast.report.runs import Run

MINUS = "−"
SHOWN = 3  # figures that are to be seen first
MANY = 500  # points of a figure; more become pixels, so that the page stays small
LEAST = 0.1  # seconds; quicker answers are drawn here, since the axis is logarithmic
# The names of the kinds of answers, and their colours.
KINDS = {
    "drawn": ("map, drawn", BLUE),
    "corrected": ("map, corrected", ORANGE),
    "accepted": ("map, accepted", GREEN),
    "box": ("map, from a box", VERMILLION),
    "points": ("map, from points", PURPLE),
    "map": ("map, its kind unknown", BLACK),
    "class": ("class alone", SKY),
    "skipped": ("skipped", GREY),
}


def sentences(run: Run) -> list[str]:
    """Sentences on the people of a run; an empty list if there is nothing to say."""
    people = run.last.people
    return [] if people is None else list(_sentences(people))


def figures(runs: Sequence[Run]) -> list[Row]:
    """A figure for each run with times of several kinds of answers: the seconds of each answer."""
    timed = {run.name: found for run in runs if run.last.people and len(found := _seconds(run)) > 1}
    return rows(timed, _draw, [*timed][:SHOWN])


def _sentences(people: People) -> Iterator[str]:
    if people.saved is not None:
        yield _saved(people.saved, "Giving classes alone after the hand-over", "one with a map")
    if people.corrected is not None:
        yield _saved(people.corrected, "Correcting the model's maps", "one whose map was drawn from nothing")
    if any(one is not None and one.low is not None and one.few for one in (people.saved, people.corrected)):
        yield f"An interval over fewer than {FEW} answers of a kind is too narrow."
    if people.steps:
        yield _steps(people.steps)
    if people.agreement is not None:
        yield from _agreement(people.agreement)


def _saved(found: Saved, how: str, slow: str) -> str:
    """Tell what was saved, with its interval, and what it was computed from."""
    one = "The one answer of this kind" if found.answers == 1 else f"Each of these {found.answers} answers"
    basis = f"{one} took {found.quick:.1f} s, and {slow} {found.slow:.1f} s (mean of {found.slow_timed})."
    if found.quick_timed < found.answers:
        basis += f" Only {found.quick_timed} of these answers have a time."
    if found.low is None or found.high is None:
        return f"{how} saved {_time(found.seconds)}; there are too few answers for an interval. {basis}"
    if found.low > 0:
        said = f"{how} saved {_time(found.seconds)} ({_time(found.low)} to {_time(found.high)})"
    elif found.high < 0:
        said = f"{how} cost {_time(-found.seconds)} more ({_time(-found.high)} to {_time(-found.low)})"
    else:
        said = f"{how}: it cannot be told if this saved time ({_time(found.low)} to {_time(found.high)})"
    return f"{said}. {basis}"


def _steps(steps: Mapping[str, Step]) -> str:
    """One sentence on the medians of the steps."""
    parts = {"class": "the class", "stroke": "the first stroke", "done": "the end of such a map"}
    told = [f"{parts[name]} {one.median:.1f} s (of {one.answers})" for name, one in steps.items()]
    return f"Median time until {', until '.join(told)}."


def _agreement(found: Agreement) -> Iterator[str]:
    """Sentences on how far people agree."""
    if found.images:
        pairs = sum(pair.images > 0 for pair in found.pairs)
        over = f"mean over {pairs} pairs of people" if pairs > 1 else "of two people"
        kappa = f"kappa is {number(found.kappa, 2)} ({over})"
        if found.kappa is None:
            kappa = f"kappa is undefined, because {found.no_kappa}"
        yield (
            f"{_count(found.images)} a class by two people or more: {kappa}, and "
            f"two answers name the same class in {100 * (found.same or 0):.0f} % of the cases."
        )
    if found.dice is not None:
        said = f"{_count(found.map_images)} two maps or more, whose mean Dice is {found.dice:.2f}"
        if found.empty_images:
            said += f"; {found.empty_images} of them have empty maps alone, which counts as 1"
        yield f"{said}."
    if found.own_dice != found.dice:
        began = "Two maps that began as the same model's map are alike whatever people think"
        if found.own_dice is None:
            yield f"{began}, and here all pairs are such."
        else:
            images = f"{found.own_images} image{'s' if found.own_images != 1 else ''}"
            yield f"{began}: without such pairs the mean Dice is {found.own_dice:.2f}, over {images}."


def _count(images: int) -> str:
    return f"{images} images have" if images != 1 else "1 image has"


def _time(seconds: float) -> str:
    return f"{MINUS}{duration(-seconds)}" if seconds < 0 else duration(seconds)


def _seconds(run: Run) -> dict[str, list[float]]:
    """The seconds of the answers to the finished rounds of a run, by kind; kinds without a time are left out.

    Raises InputError if a file of answers cannot be read.
    """
    folder = RunFolder(run.path)
    kept = [one for index in range(len(run.rounds)) for one in Answers(folder.asked(index)).own]
    found = {
        kind: [one.seconds for one in kept if one.seconds is not None and answer_kind(one) == kind]
        for kind in ANSWER_KINDS
    }
    return {kind: seconds for kind, seconds in found.items() if seconds}


def _draw(title: str, seconds: Mapping[str, Sequence[float]]) -> Iterator[Drawn]:
    """Draw a point for each answer, and a line at the median of each kind."""
    size = (6.0, 1.2 + 0.5 * len(seconds))
    figure, axes = new_figure(title, "active seconds of an answer", size=size, whole=False)
    axes.set_xscale("log")
    many = sum(map(len, seconds.values())) > MANY
    order = [*seconds][::-1]  # the first one is to stand at the top
    for y, kind in enumerate(order):
        x = np.maximum(seconds[kind], LEAST)
        spread = 0.6 * (np.arange(len(x)) * 0.618034 % 1 - 0.5) * min(1, len(x) / 8)
        look: dict[str, Any] = {"color": KINDS[kind][1], "alpha": 0.5, "markersize": 4, "markeredgewidth": 0}
        axes.plot(x, y + spread, "o", **look, rasterized=many)
        axes.plot([median(x)] * 2, [y - 0.38, y + 0.38], color=BLACK, linewidth=2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(order)), [f"{KINDS[kind][0]} ({len(seconds[kind])})" for kind in order])
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.grid(visible=False, axis="y")
    medians = ", ".join(f"{KINDS[kind][0]} {median(some):.1f} s" for kind, some in seconds.items())
    yield "people", f"Seconds of people's answers by kind, {title}. Medians: {medians}.", figure
