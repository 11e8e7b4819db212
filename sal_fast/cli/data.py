"""sal-fast data."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table as Sheet

from sal_fast.cli import parsing
from sal_fast.data import check
from sal_fast.errors import InputError


def main(arguments: list[str]) -> int:
    if arguments[:1] in ([], ["-h"], ["--help"]):
        print(
            "usage: sal-fast data check DIR\n"
            "       sal-fast data fixations FILE --out DIR [--sigma PX] [--longest 512]\n\n"
            "Look through a folder or manifest before a run does; make graded masks of eye tracking."
        )
        return 0 if arguments else 2
    if arguments[0] == "fixations":
        from sal_fast.cli import fixations  # scipy, which `check` can do without

        return fixations.main(arguments[1:])
    if arguments[0] != "check":
        raise InputError(f"unknown command 'data {arguments[0]}' (expected data check, data fixations)")
    return parsing.one_line(_check, arguments[1:], "sal-fast data check")


def _check(data: Annotated[str, tyro.conf.Positional], /) -> int:
    """Counts per class, and every file that is missing, empty, mis-sized or unreadable.

    Exit status 2 when a run would refuse the data.

    Args:
        data: a folder, a manifest, or builtin.
    """
    found = check.look(data)
    sheet = Sheet(
        "class", title=f"{found.table.name}: {len(found.table)} images, {len(found.table.classes)} classes"
    )
    by_class = [found.table.classes[label] for label in found.table.labels]
    columns = {
        "images": range(len(found.table)),
        "no mask": found.no_mask,
        "empty mask": found.empty,
        "graded mask": found.graded,
        "mis-sized mask": found.mis_sized,
        "unreadable": found.unreadable,
    }
    for column in columns:
        sheet.add_column(column, justify="right")
    tallies = [Counter(by_class[row] for row in rows) for rows in columns.values()]
    for name in found.table.classes:
        sheet.add_row(name, *(str(tally[name]) for tally in tallies))
    sheet.add_section()
    sheet.add_row("all", *(str(sum(tally.values())) for tally in tallies))
    console = Console()
    console.print(sheet, markup=False)
    for line in (*(f"note: {note}" for note in found.notes), *found.problems):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    print(f"{len(found.problems)} problem{'s' * (len(found.problems) != 1)} that a run would refuse")
    return 2 if found.problems else 0
