"""The figure of a result: its ratios as bars, with the 10th and the 90th percentile."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sal_fast._util.files import write_bytes
from sal_fast.bench import result, table
from sal_fast.report.figures import drawing, picture
from sal_fast.report.looks import BLACK, BLUE, GREEN, VERMILLION

# Ratios that keep their limit, miss it, and have none differ in colour and in hatch, so that one is enough.
LOOKS = {True: (GREEN, "", "held"), False: (VERMILLION, "///", "missed"), None: (BLUE, "", "nothing asked")}
WIDE = 6.0  # the axis is logarithmic if the largest value is more than that many times the smallest


def write(document: dict[str, Any], path: Path) -> None:
    """Write the figure of a result as PNG."""
    with drawing():
        write_bytes(path, picture(bars(document), document["bench"], "").png)


def bars(document: dict[str, Any]) -> Figure:
    """Return a bar for each ratio. Bars start at 1, which means equal times.

    The stages of a run are shares of it, so their bars start at 0.
    """
    ratios: Sequence[dict[str, Any]] = document["ratios"]
    shares = document["bench"] == "run"
    base = 0.0 if shares else 1.0
    drawn = Figure(figsize=(7.0, 1.5 + 0.44 * len(ratios)), layout="constrained")
    axes = drawn.add_subplot()
    values = [value for ratio in ratios for value in _three(ratio)] or [base]
    wide = not shares and max(values) / max(min(values), 1e-9) > WIDE
    if wide:
        axes.set_xscale("log")
    for at, ratio in enumerate(ratios):
        value, low, high = _three(ratio)
        colour, hatch, _ = LOOKS[result.held(ratio)]
        axes.barh(at, value - base, left=base, height=0.62, color=colour, hatch=hatch)
        reach = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.errorbar(value, at, xerr=reach, fmt="o", markersize=3.5, color=BLACK, elinewidth=1.2, capsize=3)
        limits = [ratio[word] for word in ("at_most", "at_least") if ratio[word] is not None]
        axes.vlines(limits, at - 0.42, at + 0.42, color=BLACK, linewidth=2.2, linestyle=":")
        text = f"{100 * value:.1f} %" if shares else f"{value:.3g}"
        beside = (max(high, base, *limits), at)
        axes.annotate(text, beside, (7, 0), textcoords="offset points", va="center", fontsize=9)
    names = [table.label(ratio, "name").removesuffix(" / whole run") for ratio in ratios]
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
    counts = ", ".join(table.count(document, field) for field in ("threads", "rounds"))
    axes.set_title(f"bench {document['bench']}, {document['device']}, {counts}", fontsize=10)
    _legend(drawn, ratios)
    return drawn


def _three(ratio: dict[str, Any]) -> tuple[float, float, float]:
    """Return the value and its percentiles; the value itself if they are not known."""
    value, low, high = ratio["value"], ratio["p10"], ratio["p90"]
    return value, value if low is None else low, value if high is None else high


def _legend(drawn: Figure, ratios: Sequence[dict[str, Any]]) -> None:
    found = {result.held(ratio) for ratio in ratios}
    looks = [look for held, look in LOOKS.items() if held in found and found != {None}]
    handles: list[Any] = [Patch(facecolor=colour, hatch=hatch, label=word) for colour, hatch, word in looks]
    if any(ratio["p10"] is not None for ratio in ratios):
        handles.append(Line2D([], [], color=BLACK, linewidth=1.2, marker="|", label="10 to 90 % of rounds"))
    if found - {None}:
        handles.append(Line2D([], [], color=BLACK, linewidth=2.2, linestyle=":", label="asked"))
    drawn.legend(handles=handles, loc="outside lower center", ncols=max(1, len(handles)))
