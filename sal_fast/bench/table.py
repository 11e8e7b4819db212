"""A result as tables: columns and rows of text, for a screen or for Markdown."""

from __future__ import annotations

from typing import Any, NamedTuple

from sal_fast.bench import result


class Sheet(NamedTuple):
    """A table of text."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Return the table in Markdown, below its title."""
        rule = "|".join(["---", *["---:"] * (len(self.columns) - 1)])
        lines = [" | ".join(row) for row in (self.columns, *self.rows)]
        return "\n".join(
            [self.title, "", f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])]
        )


def sheets(document: dict[str, Any]) -> list[Sheet]:
    """Return the tables of a result.

    A result with a floor in bytes has a row a case: our time, its share of the bandwidth of a read, and how
    many times as long every other variant takes. Another result has a row a variant, and a row a ratio.
    """
    load = " to ".join(f"{value:.1f}" for value in document["load"])
    title = (
        f"{document['bench']} on {document['device']}, {count(document, 'threads')}, load {load or 'unknown'}"
    )
    if document["read_gb_s"] is not None:
        return [_by_case(document, f"{title}, read {document['read_gb_s']:.1f} GB/s")]
    times = Sheet(title, ["", "ms a call", "10 to 90 %", f"{document['unit']} a second"], [])
    for one in document["results"]:
        row = [
            label(one, "variant"),
            number(one["ms"]),
            _spread(one, "ms_p10", "ms_p90"),
            number(one["per_second"]),
        ]
        times.rows.append(row)
    ratios = Sheet(
        f"ratios, {count(document, 'rounds')}", ["time of / time of", "ratio", "10 to 90 %", "asked"], []
    )
    for ratio in document["ratios"]:
        row = [label(ratio, "name"), number(ratio["value"]), _spread(ratio, "p10", "p90"), _asked(ratio)]
        ratios.rows.append(row)
    figures = Sheet("figures", ["", "value"], [[name, number(v)] for name, v in document["figures"].items()])
    return [sheet for sheet in (times, ratios, figures) if sheet.rows]


def _by_case(document: dict[str, Any], title: str) -> Sheet:
    results, ratios = document["results"], document["ratios"]
    ours = results[0]["variant"]
    others = list(dict.fromkeys(one["variant"] for one in results if one["variant"] != ours))
    sheet = Sheet(title, ["case", ours, "of read", *others], [])
    for one in results:
        if one["variant"] == ours:
            times = {
                ratio["name"]: f"{ratio['value']:.3g}x" for ratio in ratios if ratio["case"] == one["case"]
            }
            share = f"{100 * one['share_of_read']:.2g} %"
            theirs = [times.get(f"{other} / {ours}", "") for other in others]
            sheet.rows.append([one["case"], f"{number(one['ms'])} ms", share, *theirs])
    return sheet


def label(record: dict[str, Any], field: str) -> str:
    """Return the name of a variant or ratio, with its case if it has one."""
    return f"{record['case']}: {record[field]}" if record["case"] else record[field]


def _spread(record: dict[str, Any], low: str, high: str) -> str:
    """Return `1.2 to 3.4`; nothing if there was one round, or if it is not known."""
    if record[low] is None or record[low] == record[high]:
        return ""
    return f"{number(record[low])} to {number(record[high])}"


def _asked(ratio: dict[str, Any]) -> str:
    """Return `at most 1.15: held`, or nothing."""
    for word in ("at_most", "at_least"):
        if ratio[word] is not None:
            return f"{word.replace('_', ' ')} {ratio[word]:g}: {'held' if result.held(ratio) else 'missed'}"
    return ""


def number(value: float) -> str:
    """Return a number with three digits at least, its thousands apart."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def count(document: dict[str, Any], field: str) -> str:
    """Return `1 round` or `5 rounds` for `rounds`."""
    return f"{document[field]} {field.removesuffix('s') if document[field] == 1 else field}"
