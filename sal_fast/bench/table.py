"""A result as tables: columns and rows of text, for a screen or for Markdown."""

from typing import Any, NamedTuple

from sal_fast.bench import result

RATIO = ["time of / time of", "ratio", "10 to 90 %", "asked"]


class Sheet(NamedTuple):
    """A table of text."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Return the table in Markdown, below its title."""
        rule = "|".join(["", "---", *["---:"] * (len(self.columns) - 1), ""])
        head, *lines = (f"| {' | '.join(row)} |" for row in (self.columns, *self.rows))
        return "\n".join([self.title, "", head, rule, *lines])


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
    times = [
        [label(one, "variant"), number(one["ms"]), _spread(one, "ms_"), number(one["per_second"])]
        for one in document["results"]
    ]
    ratios = [
        [label(one, "name"), number(one["value"]), _spread(one, ""), _asked(one)]
        for one in document["ratios"]
    ]
    figures = [[name, number(value)] for name, value in document["figures"].items()]
    every = (
        Sheet(title, ["", "ms a call", "10 to 90 %", f"{document['unit']} a second"], times),
        Sheet(f"ratios, {count(document, 'rounds')}", RATIO, ratios),
        Sheet("figures", ["", "value"], figures),
    )
    return [sheet for sheet in every if sheet.rows]


def _by_case(document: dict[str, Any], title: str) -> Sheet:
    results = document["results"]
    times = {(one["case"], one["name"]): f"{one['value']:.3g}x" for one in document["ratios"]}
    ours, *others = dict.fromkeys(one["variant"] for one in results)
    sheet = Sheet(title, ["case", ours, "of read", *others], [])
    for one in results:
        if one["variant"] == ours:
            share = f"{100 * one['share_of_read']:.2g} %"
            theirs = [times.get((one["case"], f"{other} / {ours}"), "") for other in others]
            sheet.rows.append([one["case"], f"{number(one['ms'])} ms", share, *theirs])
    return sheet


def label(record: dict[str, Any], field: str) -> str:
    """Return the name of a variant or ratio, with its case if it has one."""
    return f"{record['case']}: {record[field]}" if record["case"] else record[field]


def _spread(record: dict[str, Any], prefix: str) -> str:
    """Return `1.2 to 3.4`; nothing if there was one round, or if it is not known."""
    low, high = record[f"{prefix}p10"], record[f"{prefix}p90"]
    return "" if low is None or low == high else f"{number(low)} to {number(high)}"


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
