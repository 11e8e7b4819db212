"""sal-fast query: a run's questions to people, and their answers."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sal_fast.annotate import folder, label_studio
from sal_fast.annotate.answers import Answer
from sal_fast.cli import parsing
from sal_fast.errors import InputError
from sal_fast.experiment.answers import people
from sal_fast.experiment.record import RunFolder

COMMANDS = {
    "export": "write what a run asks of people, for Label Studio or as a plain folder",
    "import": "take in what they answered",
}
TOOLS = {"labelstudio": label_studio, "folder": folder}


def main(arguments: list[str]) -> int:
    if arguments[:1] in ([], ["-h"], ["--help"]):
        print("usage: sal-fast query COMMAND RUN\n")
        for name, purpose in COMMANDS.items():
            print(f"  {name:8} {purpose}")
        print(
            "\n`sal-fast query COMMAND --help` lists a command's options; docs/people.md tells the whole way."
        )
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "export":
        return parsing.one_line(_export, rest, "sal-fast query export")
    if name == "import":
        return parsing.one_line(_import, rest, "sal-fast query import")
    raise InputError(f"unknown command 'query {name}' (expected query {', '.join(COMMANDS)})")


def _export(
    run: Annotated[Path, tyro.conf.Positional],
    /,
    to: Literal["labelstudio", "folder"],
    out: Path | None = None,
) -> int:
    """Write the images that a run asks people about, with what a person or a tool needs to answer.

    Args:
        run: the run's folder.
        to: labelstudio: tasks and interface for Label Studio; folder: images, and a table and masks to fill.
        out: a new folder; None: RUN/query-NNN-TO, or where that is there, RUN/query-NNN-TO-2 and so on.
    """
    held = RunFolder(_path(run))
    asked = people.asked(held)
    there = people.Answers(held.asked(asked.query))
    waiting = there.open(asked.ids)
    if not waiting:
        print(f"query {asked.query} is answered; repeat the run's command to go on")
        return 0
    image = dict(zip(asked.ids, asked.images, strict=True))
    left = dataclasses.replace(asked, ids=waiting, images=[image[name] for name in waiting])
    target = _free(held.path / f"query-{asked.query:03d}-{to}") if out is None else _path(out)
    TOOLS[to].export(left, target)
    what = "a class and a map" if asked.maps else "a class, no map"
    print(
        f"{target}: query {asked.query}, {len(waiting)} images that want {what}; README.txt there says how\n"
        f"then: sal-fast query import {run} {target if to == 'folder' else 'FILE'}"
    )
    return 0


def _free(path: Path) -> Path:
    """That folder, or the first numbered one that is not there."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(one for one in itertools.chain([path], numbered) if not one.exists())


def _import(
    run: Annotated[Path, tyro.conf.Positional],
    file: Annotated[Path, tyro.conf.Positional],
    /,
    skip_rest: bool = False,
) -> int:
    """Take in answers. All of a file is read before any of it is kept; what was imported before stays.

    An answer by the same person for the same image replaces the earlier one. Answers for a part of the images
    are kept, and the run waits for the others.

    Args:
        run: the run's folder.
        file: Label Studio's JSON export, or the folder (or its answers.csv) that was filled.
        skip_rest: images without an answer are skipped: the run does not ask for them again.
    """
    held = RunFolder(_path(run))
    asked = people.asked(held)
    path = _path(file)
    plain = path.is_dir() or path.suffix.lower() == ".csv"
    found = (folder if plain else label_studio).read(path, asked)
    with held.lock():
        there = people.reopen(held, asked)
        there.add(found)
        if skip_rest:
            there.add([Answer(name, None, None, "", None, True) for name in there.open(asked.ids)])
    flat = [one.id for one in found if one.mask is not None and one.mask.min() == one.mask.max()]
    if flat:
        print(f"note: maps that mark all of the picture or none of it: {len(flat)}, the first of {flat[0]!r}")
    print(_told(asked, there, len(found)))
    return 0


def _told(asked: people.Asked, there: people.Answers, read: int) -> str:
    verdicts = there.verdicts()
    count, waiting = people.tally([there]), there.open(asked.ids)
    said = f"query {asked.query}: {read} answers read; {count['labelled']} of {len(asked.ids)} images "
    said += "have a class"
    if asked.maps:
        said += f", {count['maps']} a map"
        bare = [name for name, one in verdicts.items() if one.label is not None and not one.masks]
        if bare:
            said += f" (without: {len(bare)}, the first is {bare[0]!r})"
    if count["skipped"]:
        said += f", skipped: {count['skipped']}"
    if waiting:
        return f"{said}\nstill open: {len(waiting)}, the first is {waiting[0]!r}; import their answers next"
    return f"{said}\nthe query is answered; repeat the run's command to go on"


def _path(path: Path) -> Path:
    return Path(os.path.expanduser(path))
