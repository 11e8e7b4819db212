"""A result as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table as Sheet

from sal_fast.bench import schema


def show(document: dict[str, Any], console: Console) -> None:
    """Every variant's time, then every ratio and whether it is what is asked."""
    head = f"{document['bench']} on {document['device']}, {document['threads']} threads"
    before, after = document["load"]
    unit = document["unit"]
    times = Sheet(
        "", "ms a call", "10 to 90 %", f"{unit} a second", title=f"{head}, load {before:.1f} to {after:.1f}"
    )
    for result in document["results"]:
        spread = f"{number(result['ms_p10'])} to {number(result['ms_p90'])}"
        times.add_row(result["variant"], number(result["ms"]), spread, number(result["per_second"]))
    ratios = Sheet("time of / time of", "ratio", "10 to 90 %", "asked", title=f"ratios, {rounds(document)}")
    for ratio in document["ratios"]:
        spread = f"{ratio['p10']:.3g} to {ratio['p90']:.3g}"
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


def rounds(document: dict[str, Any]) -> str:
    return f"{document['rounds']} round{'s' * (document['rounds'] != 1)}"
