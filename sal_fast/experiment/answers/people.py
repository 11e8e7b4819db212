"""Queries that people answer: what is asked, what has come back, and how the run folder keeps it.

    start/answers.json           the answers to the start set
    rounds/007/answers.json      those to the query made after round 7
    .../drawn/N/<id>.png         maps by the Nth annotator, at their pictures' own sizes

Nothing here trains: a run that waits holds no GPU and no memory.
"""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sal_fast._util.files import read_json, write_bytes, write_json
from sal_fast.annotate.people.question import Answer, Question
from sal_fast.data import files, load_table
from sal_fast.errors import InputError
from sal_fast.experiment.answers.turns import Turns
from sal_fast.experiment.record import RunFolder

FORMAT = 1


class Waiting(Exception):
    """People have not answered a query yet; the run goes on when they have."""

    def __init__(self, folder: Path, query: int, answered: int, asked: int) -> None:
        self.folder, self.query, self.answered, self.asked = folder, query, answered, asked
        super().__init__(
            f"{folder} waits for people: {answered} of the {asked} images of query {query} are answered"
        )


@dataclass(frozen=True)
class Kept:
    """One person's answer for one image, in the run folder; `mask` is a PNG below the query's folder."""

    id: str
    label: str | None
    annotator: str
    seconds: float | None
    skipped: bool
    mask: str | None


@dataclass(frozen=True)
class Verdict:
    """What an image's answers come to: a class, or None where all skipped it; the maps that were drawn."""

    label: str | None
    masks: list[Path]


class Answers:
    """The answers to one query, in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "answers.json"
        there: dict[str, Any] = {"format": FORMAT, "answers": []}
        if path.exists():
            there = read_json(path)
        try:
            if there["format"] != FORMAT:
                raise KeyError(f"format {there['format']!r}")
            self.kept = [Kept(**one) for one in there["answers"]]
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: the answers cannot be read ({error}); restore it") from None

    def add(self, answers: Iterable[Answer]) -> None:
        """Keep these; who has answered for an image before is taken to have changed their mind."""
        kept = {(one.id, one.annotator): one for one in self.kept}
        names = list(dict.fromkeys(one.annotator for one in self.kept))
        for answer in answers:
            if answer.annotator not in names:
                names.append(answer.annotator)
            mask = None
            if answer.mask is not None:
                mask = f"drawn/{names.index(answer.annotator)}/{answer.id}.png"
                out = io.BytesIO()
                Image.fromarray(answer.mask).save(out, format="png")
                write_bytes(self.folder / mask, out.getvalue())
            own = {field.name: getattr(answer, field.name) for field in dataclasses.fields(Kept)}
            kept[answer.id, answer.annotator] = Kept(**own | {"mask": mask})
        self.kept = list(kept.values())
        write_json(
            self.folder / "answers.json",
            {"format": FORMAT, "answers": [dataclasses.asdict(one) for one in self.kept]},
        )

    def verdicts(self) -> dict[str, Verdict]:
        """By id, of the images that somebody answered or skipped.

        The class that most gave (of equals, the one given first); the maps of all who drew one. An image
        counts as skipped where nobody gave a class.
        """
        by_id: dict[str, list[Kept]] = {}
        for one in self.kept:
            by_id.setdefault(one.id, []).append(one)
        found = {}
        for name, answers in by_id.items():
            given = Counter(one.label for one in answers if not one.skipped)
            masks = [self.folder / one.mask for one in answers if one.mask is not None and not one.skipped]
            found[name] = Verdict(given.most_common(1)[0][0] if given else None, masks)
        return found

    def open(self, ids: Sequence[str]) -> list[str]:
        """Those of a query without an answer."""
        there = self.verdicts()
        return [name for name in ids if name not in there]


def tally(answers: Iterable[Answers]) -> dict[str, Any]:
    """What people have done, over several queries: images by outcome, answers and seconds by kind.

    Several people's answers for one image count each; seconds is None where nobody measured. Images that
    nobody by name skipped are no annotator's (`query import --skip-rest`).
    """
    answers = list(answers)
    verdicts = [verdict for one in answers for verdict in one.verdicts().values()]
    kept = [one for query in answers for one in query.kept]
    with_map = [one for one in kept if one.mask is not None and not one.skipped]
    label_only = [one for one in kept if one.mask is None and not one.skipped]
    return {
        "labelled": sum(verdict.label is not None for verdict in verdicts),
        "maps": sum(bool(verdict.masks) for verdict in verdicts),
        "skipped": sum(verdict.label is None for verdict in verdicts),
        "annotators": len({one.annotator for one in kept if one.annotator or not one.skipped}),
        "answers_with_map": len(with_map),
        "answers_label_only": len(label_only),
        "seconds": _seconds(kept),
        "map_seconds": _seconds(with_map),
        "label_seconds": _seconds(label_only),
    }


def _seconds(kept: Iterable[Kept]) -> float | None:
    measured = [one.seconds for one in kept if one.seconds is not None]
    return round(sum(measured), 3) if measured else None


def map_in_frame(masks: Sequence[Path], image: Path, size: int) -> np.ndarray:
    """uint8 [size, size]: a person's map as a data set's own would come out; of several, their mean."""
    try:
        shown = files.read(image).size
        drawn = [files.read(path) for path in masks]
        return files.average([files.mask(one, files.grades(one), size, shown) for one in drawn])
    except files.Unreadable as error:
        raise InputError(f"{error}; restore it, or import the answers again") from None


def asked(folder: RunFolder) -> Question:
    """What a run waits for, answered or not; InputError where it waits for nothing."""
    if not folder.run_json.exists():
        raise InputError(f"{folder.path}: no run.json in it; name a run's folder")
    run, lines = folder.run(), folder.rounds()
    config = folder.config()
    if config.annotator != "people":
        raise InputError(
            f"{folder.path} asks nobody: its --annotator is {config.annotator!r}; start a run with "
            f"--annotator people"
        )
    query_index, plan = len(lines), config.plan(len(run["splits"]["train"]))
    if query_index >= plan.rounds:
        raise InputError(f"{folder.path} is finished; it asks nothing more")
    ids = [str(name) for name in run["start"]] if query_index == 0 else folder.query(query_index - 1)
    table = load_table(config.data, config.root)
    image = dict(zip(table.ids, table.images, strict=True))
    gone = [name for name in ids if name not in image]
    if gone:
        raise InputError(f"{table.name}: image {gone[0]!r}, which the run asks for, is gone; restore it")
    trials = [line.get("trial_dice") for line in lines]
    return Question(
        run=folder.path.resolve().name,
        query_index=query_index,
        ids=ids,
        images=[image[name] for name in ids],
        classes=list(run["data"]["classes"]),
        maps=Turns.of(config, plan).source(query_index, trials) == "human",
    )


def reopen(folder: RunFolder, asked: Question) -> Answers:
    """The answers to what is asked, to add to; what a killed round has made of the earlier ones goes.

    Hold the folder's lock. InputError where the run has gone on since it asked.
    """
    if len(folder.rounds()) != asked.query_index:
        raise InputError(
            f"{folder.path} has gone on meanwhile; it no longer asks about query {asked.query_index}"
        )
    answers = Answers(folder.asked(asked.query_index))
    for drawn in ("maps", "predicted"):
        shutil.rmtree(answers.folder / drawn, ignore_errors=True)
    if asked.maps:  # a teacher there is the killed round's: the next query is its first
        folder.teacher.unlink(missing_ok=True)
    return answers
