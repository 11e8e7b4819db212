"""Queries that people answer: the questions, the answers, and their files in the run folder.

    start/answers.json           the answers to the start set
    rounds/007/answers.json      the answers to the query made after round 7
    .../drawn/N/<id>.png         the maps by the Nth annotator, at their pictures' own sizes

A run that waits for people is no process, so it holds no GPU and no memory.
"""

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
from sal_fast.data import files, load_table, meaning
from sal_fast.errors import InputError
from sal_fast.experiment import growing
from sal_fast.experiment.answers.turns import Turns
from sal_fast.experiment.record import RunFolder

FORMAT = 1


class Waiting(Exception):
    """People have not answered a query yet. The run goes on when they have."""

    def __init__(self, folder: Path, query: int, answered: int, asked: int) -> None:
        self.folder, self.query, self.answered, self.asked = folder, query, answered, asked
        super().__init__(
            f"{answered} of the {asked} images of query {query} are answered; the run waits for people: "
            f"{folder}"
        )


@dataclass(frozen=True)
class Kept:
    """One person's answer for one image, as the run folder keeps it.

    mask: the path of a PNG below the query's folder, or None.
    """

    id: str
    label: str | None
    annotator: str
    seconds: float | None
    skipped: bool
    mask: str | None


@dataclass(frozen=True)
class Verdict:
    """The outcome of all answers for one image.

    label: the class; None if everybody skipped the image. masks: the files of the maps that were drawn.
    """

    label: str | None
    masks: list[Path]


class Answers:
    """The answers to one query, which are kept in its folder."""

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
        """Keep these answers. A person's new answer for an image replaces their earlier one."""
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
        """The verdicts by id, for all images that somebody answered or skipped.

        The class is the one that most people gave; on a tie it is the one that was given first. The maps are
        those of all people who drew one. An image counts as skipped if nobody gave a class.
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
        """The ids that have no answer yet."""
        there = self.verdicts()
        return [name for name in ids if name not in there]


def tally(answers: Iterable[Answers]) -> dict[str, Any]:
    """Count what people have done over several queries: images by outcome, answers and seconds by kind.

    If several people answer for one image, each of their answers counts. Seconds are None if nobody measured
    them. Images that `query import --skip-rest` gave up count for no annotator.
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
    """The map that people drew, uint8 [size, size], read like a data set's own. Several give their mean.

    Raises InputError if a file cannot be read.
    """
    try:
        shown = files.read(image)
        drawn = [files.read(path) for path in masks]
        maps = [meaning.read(one, files.grades(one), size, shown) for one in drawn]
        return meaning.joined(maps, united=False)
    except files.Unreadable as error:
        raise InputError(f"{error}; restore it, or import the answers again") from None


def asked(folder: RunFolder) -> Question:
    """The question that a run waits for, answered or not. Raises InputError if it waits for nothing."""
    if not folder.run_json.exists():
        raise InputError(f"{folder.path}: no run.json in it; name a run's folder")
    run, lines = folder.run(), folder.rounds()
    config = folder.config()
    if config.annotator != "people":
        raise InputError(
            f"{folder.path} asks nobody: its --annotator is {config.annotator!r}; start a run with "
            f"--annotator people"
        )
    query_index, plan = len(lines), growing.plan_of(config, run)
    if query_index >= plan.rounds or (lines and lines[-1].get("stopped")):
        raise InputError(f"{folder.path} is finished; it asks nothing more")
    ids = [str(name) for name in run["start"]] if query_index == 0 else folder.query(query_index - 1)
    table = load_table(config.data, config.root, config.its_rule, config.its_format)
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
