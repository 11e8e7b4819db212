"""What all figures share: the canvas, the legend, marks with their spread, and the files they become."""

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, TypeVar

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sal_fast.report.looks import GRID, Style

RC: dict[Any, Any] = {
    "text.parse_math": False,  # names of classes, folders and data sets are text, never mathematics
    "svg.hashsalt": "sal-fast",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.markersize": 5,
    "hatch.linewidth": 0.6,
    "hatch.color": "white",
}

Part = TypeVar("Part")
Drawn = tuple[str, str, Figure]  # the name of its file, the text for those who cannot see it, the figure


@dataclass(frozen=True)
class Picture:
    """A drawn figure: `name`.png stands beside the page, the SVG in it."""

    name: str
    alt: str
    inches: float
    svg: bytes
    png: bytes


@dataclass(frozen=True)
class Row:
    """Figures that belong together. main: True for those to see first."""

    title: str
    pictures: list[Picture]
    main: bool = True
    caption: str = ""


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with matplotlib's own defaults and ours, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def picture(figure: Figure, name: str, alt: str) -> Picture:
    """Make the files of a figure, and empty it: matplotlib's cycles would keep it in memory."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.set_layout_engine("none")  # the PNG keeps the layout worked out for the SVG
    figure.savefig(png, format="png", dpi=200)
    figure.clear()
    return Picture(name, alt, figure.get_figwidth(), svg.getvalue(), png.getvalue())


def rows(
    parts: Mapping[str, Part],
    draw: Callable[[str, Part], Iterable[Drawn]],
    main: Collection[str] | None = None,
) -> list[Row]:
    """A row of figures for each part, under its title; `main`: the titles to see first, None for all.

    The files of several rows are numbered in their order.
    """
    return [
        Row(
            title,
            [picture(figure, numbered(name, i, len(parts)), alt) for name, alt, figure in draw(title, part)],
            main is None or title in main,
        )
        for i, (title, part) in enumerate(parts.items())
    ]


def numbered(name: str, i: int, of: int) -> str:
    return name if of == 1 else f"{name}-{i + 1}"


def new_figure(
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    size: tuple[float, float] = (5.2, 3.8),
    *,
    whole: bool = True,
) -> tuple[Figure, Axes]:
    """One pair of axes, wide enough for a column of print and still legible on a phone.

    Along x there are at most seven numbers, so that they stay apart: whole ones unless `whole` is False.
    """
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot(title=short(title, 50), xlabel=xlabel, ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole, steps=[1, 2, 5, 10]))
    return figure, axes


def legend(figure: Figure, columns: int | None = None) -> None:
    """Put a legend below the axes, with one entry for each label; the figure grows by its height."""
    entries: dict[str, Artist] = {}
    for handle, label in zip(*figure.axes[0].get_legend_handles_labels(), strict=True):
        entries.setdefault(label, handle)
    if columns is None:
        columns = 1 if any(len(label) > 30 for label in entries) else 2
    texts = [textwrap.fill(label, 60 // columns) for label in entries]
    # The columns are filled one after the other, each as high as its own lines.
    high = math.ceil(len(texts) / columns)
    lines = [sum(t.count("\n") + 1 for t in texts[i : i + high]) for i in range(0, len(texts), high)]
    figure.set_figheight(figure.get_figheight() + 0.19 * max(lines))
    handles = [*entries.values()]
    figure.legend(handles, texts, loc="outside lower center", ncols=columns, handlelength=3)


def mark(axes: Axes, x: Sequence[float], y: Sequence[float], style: Style, dashes: Any = "-") -> None:
    """Mark the mean of points, with one standard deviation each way where there are two or more."""
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


def mark_entry(axes: Axes, style: Style, label: str, colour: str | None = None) -> None:
    """Add what `mark` draws to the legend."""
    size = 1.4 * style["markersize"]
    changed = {"linestyle": "", "markersize": size, "color": colour or style["color"]}
    axes.plot([], [], **{**style, **changed}, label=label)


def mean_and_sigma(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and the standard deviation, which is 0 for a single value."""
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
