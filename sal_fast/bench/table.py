"""A result as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table as Sheet

from sal_fast.bench import schema


def show(document: dict[str, Any], console: Console) -> None:
    """Every variant's time, then every ratio and whether it is what is asked."""
    before, after = document["load"]
    title = f"{document['bench']} on {document['device']}, {count(document, 'threads')}, "
    title += f"load {before:.1f} to {after:.1f}"
    once = document["rounds"] == 1
    times = Sheet("", "ms a call", "10 to 90 %", f"{document['unit']} a second", title=title)
    for result in document["results"]:
        spread = "" if once else f"{number(result['ms_p10'])} to {number(result['ms_p90'])}"
        times.add_row(result["variant"], number(result["ms"]), spread, number(result["per_second"]))
    ratios = Sheet(
        "time of / time of", "ratio", "10 to 90 %", "asked", title=f"ratios, {count(document, 'rounds')}"
    )
    for ratio in document["ratios"]:
        spread = "" if once else f"{ratio['p10']:.3g} to {ratio['p90']:.3g}"
        held = {True: ": held", False: ": missed", None: ""}[schema.held(ratio)]
        ratios.add_row(ratio["name"], f"{ratio['value']:.3g}", spread, schema.asked(ratio) + held)
    for sheet in (times, ratios):
        for column in sheet.columns[1:]:
            column.justify = "right"
        console.print(sheet, markup=False)
    for name, value in document["figures"].items():
        console.print(f"{name}: {value:.3f}", markup=False)


def number(value: float) -> str:
    """Three digits at least, thousands apart."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def count(document: dict[str, Any], of: str) -> str:
    """`1 round`, `5 rounds`."""
    return f"{document[of]} {of.removesuffix('s') if document[of] == 1 else of}"
