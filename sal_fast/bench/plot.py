"""A figure of a result: its ratios as bars, with the 10th and 90th percentile."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sal_fast._util.files import read_json, write_bytes
from sal_fast.bench import schema, table
from sal_fast.errors import InputError
from sal_fast.report.figures import BLACK, BLUE, GREEN, VERMILLION, Picture, drawing, picture

# Colour and hatch, so that neither is needed: of what is held, missed, and not asked.
LOOKS = {True: (GREEN, ""), False: (VERMILLION, "///"), None: (BLUE, "")}
WORDS = {True: "held", False: "missed", None: "nothing asked"}
WIDE = 6.0  # largest over smallest, above which the axis is logarithmic


def read(path: Path) -> dict[str, Any]:
    """A result file; InputError where it is none."""
    document = read_json(path)
    try:
        schema.check(document)
    except ValueError as error:
        raise InputError(f"{path}: not a result of `sal-fast bench`: {error}") from None
    return document


def write(document: dict[str, Any], path: Path) -> None:
    """The figure as PNG."""
    write_bytes(path, draw(document).png)


def draw(document: dict[str, Any]) -> Picture:
    with drawing():
        alt = f"Ratios of bench {document['bench']} on {document['device']}."
        return picture(figure(document), f"bench-{document['bench']}", alt)


def figure(document: dict[str, Any]) -> Figure:
    """Bars start at 1, equal times; at 0 for the stages of a run, which are shares of it."""
    ratios: Sequence[dict[str, Any]] = document["ratios"]
    shares = document["bench"] == "run"
    base = 0.0 if shares else 1.0
    drawn = Figure(figsize=(7.0, 1.5 + 0.44 * len(ratios)), layout="constrained")
    axes = drawn.add_subplot()
    values = [ratio[field] for ratio in ratios for field in ("value", "p10", "p90")]
    wide = not shares and max(values) / max(min(values), 1e-9) > WIDE
    if wide:
        axes.set_xscale("log")
    for at, ratio in enumerate(ratios):
        value, low, high = ratio["value"], ratio["p10"], ratio["p90"]
        colour, hatch = LOOKS[schema.held(ratio)]
        axes.barh(at, value - base, left=base, height=0.62, color=colour, hatch=hatch)
        reach = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.errorbar(value, at, xerr=reach, fmt="o", markersize=3.5, color=BLACK, elinewidth=1.2, capsize=3)
        limits = [limit for limit in (ratio["at_most"], ratio["at_least"]) if limit is not None]
        for limit in limits:
            ends = [at - 0.42, at + 0.42]
            axes.plot([limit, limit], ends, color=BLACK, linewidth=2.2, linestyle=":")
        text = f"{100 * value:.1f} %" if shares else f"{value:.3g}"
        beside = (max(high, base, *limits), at)
        axes.annotate(text, beside, (7, 0), textcoords="offset points", va="center", fontsize=9)
    names = [ratio["name"].removesuffix(" / whole run") if shares else ratio["name"] for ratio in ratios]
    axes.set_yticks(range(len(ratios)), [textwrap.fill(name, 46) for name in names], fontsize=9)
    axes.set_ylim(len(ratios) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.14)
    axes.axvline(base, color=BLACK, linewidth=1)
    if wide:
        decades = max(values) / min(values) > 300
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1,) if decades else (1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("share of the run's time" if shares else "time of the first / time of the second")
    axes.set_title(
        f"bench {document['bench']}, {document['device']}, {table.count(document, 'threads')}, "
        f"{table.count(document, 'rounds')}",
        fontsize=10,
    )
    _legend(drawn, ratios)
    return drawn


def _legend(drawn: Figure, ratios: Sequence[dict[str, Any]]) -> None:
    found = {schema.held(ratio) for ratio in ratios}
    handles: list[Any] = [
        Patch(facecolor=colour, hatch=hatch, label=WORDS[held])
        for held, (colour, hatch) in LOOKS.items()
        if held in found and found != {None}
    ]
    handles.append(Line2D([], [], color=BLACK, linewidth=1.2, marker="|", label="10 to 90 % of rounds"))
    if found - {None}:
        handles.append(Line2D([], [], color=BLACK, linewidth=2.2, linestyle=":", label="asked"))
    drawn.legend(handles=handles, loc="outside lower center", ncols=len(handles))
