"""sal-fast data."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table as Sheet

from sal_fast.cli import parsing
from sal_fast.data import augment, catalog, check, decode, load_table, prepare
from sal_fast.errors import InputError

COMMANDS = {
    "check": "look through a data set before a run does",
    "prepare": "decode a data set once, for all runs",
    "fixations": "render eye tracking to masks",
}


def main(arguments: list[str]) -> int:
    if arguments[:1] in ([], ["-h"], ["--help"]):
        print("usage: sal-fast data COMMAND\n")
        for name, purpose in COMMANDS.items():
            print(f"  {name:10} {purpose}")
        print("\n`sal-fast data COMMAND --help` lists a command's options.")
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "check":
        return parsing.one_line(_check, rest, "sal-fast data check")
    if name == "prepare":
        return parsing.one_line(_prepare, rest, "sal-fast data prepare")
    if name == "fixations":
        from sal_fast.cli import fixations

        return fixations.main(rest)
    raise InputError(f"unknown command 'data {name}' (expected data {', '.join(COMMANDS)})")


def _check(data: Annotated[str, tyro.conf.Positional], /, root: str | None = None) -> int:
    """Counts per class, and every file that is missing, empty, mis-sized or unreadable.

    For one of the paper's data sets also what differs from its Table 1. Exit status 2 when a run would refuse
    the data.

    Args:
        data: a folder, a manifest, builtin, or, with root: cub200, flowers102, imagenet-s, ham10000, food201.
        root: the folder of the official archives, unpacked or not.
    """
    found = check.look(data, root)
    sheet = Sheet(
        "class", title=f"{found.table.name}: {len(found.table)} images, {len(found.table.classes)} classes"
    )
    by_class = [found.table.class_name(row) for row in range(len(found.table))]
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
    for name in (*found.table.classes, *([""] if "" in by_class else [])):
        sheet.add_row(name or "(no label yet)", *(str(tally[name]) for tally in tallies))
    sheet.add_section()
    sheet.add_row("all", *(str(sum(tally.values())) for tally in tallies))
    console = Console()
    console.print(sheet, markup=False)
    if data in catalog.ENTRIES and not found.notes:
        print("all counts are those of the paper's Table 1")
    for line in (*(f"note: {note}" for note in found.notes), *found.problems):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    print(f"{len(found.problems)} problem{'s' * (len(found.problems) != 1)} that a run would refuse")
    return 2 if found.problems else 0


def _prepare(
    *,
    data: str,
    out: Path,
    root: str | None = None,
    image_size: int = 224,
    augment: augment.Preset = "none",
    copy: bool = True,
    decoder: decode.Name = "auto",
) -> int:
    """Decode a data set once: `sal-fast run --data OUT` then starts at once, from a copy at its size.

    The same command continues where it was interrupted, and decodes again only what has changed since. Files
    that cannot be used are listed at the end, with exit status 2; mend or remove them and repeat the command.

    Args:
        data: a folder, a manifest, builtin, or, with root: cub200, flowers102, imagenet-s, ham10000, food201.
        out: the folder to write to.
        root: the folder of the official archives, unpacked or not.
        image_size: of the runs to come: pixels a side that the network sees.
        augment: of the runs to come: with crops, images are kept at 8/7 of image_size.
        copy: keep decoded images (3 bytes a pixel); without, only masks, and images are decoded in every run.
        decoder: dali, torch, pillow, or auto (dali on a GPU where it is installed, else torch).
    """
    if image_size < 1:
        raise InputError(f"--image-size {image_size}: expected at least 1")
    table = load_table(data, root)
    if table.prepared is not None:
        raise InputError(f"--data {data} is prepared already; --data names the originals")
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = prepare.Recipe(image_size, _stored_size(augment, image_size), copy)
    out = Path(os.path.expanduser(out))
    with closing(decode.choose(decoder, place)) as decoding:
        broken = prepare.prepare(table, out, recipe, decoding)
    for error in broken:
        print(error)
    if broken:
        raise InputError(
            f"{len(broken)} of {len(table)} samples cannot be used (see above); mend or remove their files, "
            f"then repeat the command: the others are kept"
        )
    print(f"{out}: {len(table)} samples, for --image-size {image_size} --augment {augment}")
    return 0


_stored_size = augment.stored_size  # `augment` is an option's name there
