"""Queries that people answer: the question that a run asks, and the step from their answers to its maps.

    start/question.json, answers.json         the start set
    rounds/007/question.json, answers.json    the query made after round 7; suggested.npz has the model's maps

A run that waits for people is no process, so it holds no GPU and no memory. This module imports no torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sal_fast._util.files import read_json, write_json
from sal_fast.data import files, meaning
from sal_fast.errors import InputError
from sal_fast.experiment import growing
from sal_fast.experiment.answers.turns import Turns
from sal_fast.experiment.config import Config
from sal_fast.experiment.record import RunFolder
from sal_fast.people.answers import Answers
from sal_fast.people.question import Question

if TYPE_CHECKING:
    import numpy as np

    from sal_fast.data import Table

FORMAT = 1
POSED = "question.json"
WAITING = 75  # EX_TEMPFAIL: the exit status of a process that ended because it waits for people


class Waiting(Exception):
    """People have not answered a query yet. The run goes on when they have."""

    def __init__(self, folder: Path, query: int, answered: int, asked: int, maps: bool = False) -> None:
        self.folder, self.query, self.answered, self.asked = folder, query, answered, asked
        self.maps = maps  # True if people are to draw, too
        super().__init__(
            f"{answered} of the {asked} images of query {query} are answered; the run waits for people: "
            f"{folder}"
        )


def map_in_frame(masks: Sequence[Path], image: Path, size: int) -> np.ndarray:
    """The map that people drew, uint8 [size, size], read as a data set's own masks are.

    Several maps give their mean. Raises InputError if a file cannot be read.
    """
    try:
        shown = files.read(image)
        drawn = [files.read(path) for path in masks]
        maps = [meaning.read(one, files.grades(one), size, shown) for one in drawn]
        return meaning.joined(maps, united=False)
    except files.Unreadable as error:
        raise InputError(f"{error}; restore it, or import the answers again") from None


def asked(folder: RunFolder) -> Question:
    """The question that a run waits for, answered or not. Raises InputError if it waits for nothing.

    It reads what the run wrote when it asked (`pose`). The data is read only if that is not there, or if its
    images have moved.
    """
    config = config_of(folder)
    run, lines = folder.run(), folder.rounds()
    query_index, plan = len(lines), growing.plan_of(config, run)
    if query_index >= plan.rounds or (lines and lines[-1].get("stopped")):
        raise InputError(f"{folder.path} is finished; it asks nothing more")
    posed = _posed(folder, query_index)
    if posed is not None:
        return posed
    ids = [str(name) for name in run["start"]] if query_index == 0 else folder.query(query_index - 1)
    table = read_table(config)
    trials = [line.get("trial_dice") for line in lines]
    maps = Turns.of(config, plan).source(query_index, trials) == "human"
    classes = run["data"]["classes"]
    return question(folder, query_index, ids, table, classes, maps, config.uses_own_masks)


@dataclass(frozen=True)
class Query:
    """One query of a run and the answers to it. It waits as long as no finished round has used them."""

    index: int
    ids: list[str]
    answers: Answers
    waits: bool


def queries(folder: RunFolder) -> list[Query]:
    """The queries that a run has made so far, answered or not. It changes nothing, so it needs no lock."""
    config = config_of(folder)
    run, lines = folder.run(), folder.rounds(mend=False)
    rounds = growing.plan_of(config, run).rounds
    ended = len(lines) >= rounds or (bool(lines) and bool(lines[-1].get("stopped")))
    found = []
    for index in range(len(lines) + (not ended)):
        ids = folder.query(index - 1) if index else [str(name) for name in run["start"]]
        found.append(Query(index, ids, Answers(folder.asked(index)), index == len(lines)))
    return found


def images_of(folder: RunFolder, queries: Sequence[Query]) -> dict[str, Path]:
    """The image files of some queries, by id. The data is read only for a query that was not written down."""
    found: dict[str, Path] = {}
    table: Table | None = None
    for query in queries:
        asked = _posed(folder, query.index)
        if asked is None:
            config = folder.config()
            table = table or read_table(config)
            asked = question(
                folder, query.index, query.ids, table, table.classes, maps=False, own_masks=False
            )
        found |= zip(asked.ids, asked.images, strict=True)
    return found


def config_of(folder: RunFolder) -> Config:
    """The configuration of a run that asks people. Raises InputError for any other folder."""
    if not folder.run_json.exists():
        raise InputError(f"{folder.path}: no run.json in it; name a run's folder")
    config = folder.config()
    if config.annotator != "people":
        raise InputError(
            f"{folder.path} asks nobody: its --annotator is {config.annotator!r}; start a run with "
            f"--annotator people"
        )
    return config


def read_table(config: Config) -> Table:
    """Read the data of a run."""
    from sal_fast.data import load_table  # it imports torch

    return load_table(config.data, config.root, config.its_rule, config.its_format)


def question(
    folder: RunFolder,
    query_index: int,
    ids: Sequence[str],
    table: Table,
    classes: Sequence[str],
    maps: bool,
    own_masks: bool,
) -> Question:
    """The question about some images of a table. Raises InputError if the table has one of them no more.

    maps: True if people are to draw. own_masks: True if they need not where the table has a mask.
    """
    row_of = {name: row for row, name in enumerate(table.ids)}
    gone = [name for name in ids if name not in row_of]
    if gone:
        raise InputError(f"{table.name}: image {gone[0]!r}, which the run asks for, is gone; restore it")
    known = [name for name in ids if table.masks[row_of[name]] is not None] if maps and own_masks else []
    return Question(
        run=folder.path.resolve().name,
        query_index=query_index,
        ids=list(ids),
        images=[table.images[row_of[name]] for name in ids],
        classes=list(classes),
        maps=maps,
        has_map=frozenset(known),
    )


def pose(folder: Path, asked: Question) -> None:
    """Write a question to the folder of its query, so that it can be read without the data and torch."""
    write_json(
        folder / POSED,
        {
            "format": FORMAT,
            "query": asked.query_index,
            "ids": asked.ids,
            "images": [str(path.absolute()) for path in asked.images],
            "classes": asked.classes,
            "maps": asked.maps,
            "has_map": sorted(asked.has_map),
            "labels": dict(asked.labels),
        },
    )


def posed(folder: Path, run: str) -> Question | None:
    """The question that was written to a folder; None if there is none, or if an image of it has moved."""
    path = folder / POSED
    if not path.exists():
        return None
    there = read_json(path)
    try:
        if there["format"] != FORMAT:
            raise KeyError(f"format {there['format']!r}")
        found = Question(
            run=run,
            query_index=int(there["query"]),
            ids=list(there["ids"]),
            images=[Path(name) for name in there["images"]],
            classes=list(there["classes"]),
            maps=bool(there["maps"]),
            has_map=frozenset(there["has_map"]),
            labels=dict(there["labels"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: the question cannot be read ({error}); remove the file, and repeat the run's command"
        ) from None
    return found if all(path.is_file() for path in found.images) else None


def _posed(folder: RunFolder, query_index: int) -> Question | None:
    return posed(folder.asked(query_index), folder.path.resolve().name)


def reopen(folder: RunFolder, asked: Question) -> Answers:
    """The answers to what is asked, so that more can be added. The caller holds the folder's lock.

    Maps, and a first teacher, that a killed round made from earlier answers are deleted. Raises InputError if
    the run has gone on since it asked.
    """
    if len(folder.rounds()) != asked.query_index:
        raise InputError(
            f"{folder.path} has gone on meanwhile; it no longer asks about query {asked.query_index}"
        )
    answers = Answers(folder.asked(asked.query_index))
    for drawn in ("maps", "predicted"):
        shutil.rmtree(answers.folder / drawn, ignore_errors=True)
    drew = any((folder.asked(one) / "maps").exists() for one in range(asked.query_index))
    if asked.maps and not drew:  # no query had a teacher's maps, so a teacher here is the killed round's
        folder.teacher.unlink(missing_ok=True)
    return answers
