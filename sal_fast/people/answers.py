"""The answers of people to one query, and their files in the query's folder.

answers.json         the class, the times and the kind of map of each answer
drawn/N/<id>.png     the maps by the Nth annotator, at their pictures' own sizes; or in drawn/N-again/, if the
                     map took the place of another
"""

import dataclasses
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from PIL import Image

from sal_fast._util.files import read_json, write_bytes, write_json
from sal_fast.errors import InputError
from sal_fast.people.question import KINDS, Answer, one_person

FORMAT = 1
# The kinds of answers: those of maps, a map of an unknown kind, a class without a map, and a skipped image.
ANSWER_KINDS = (*KINDS, "map", "class", "skipped")


@dataclass(frozen=True)
class Kept:
    """One person's answer for one image, as the run folder keeps it.

    mask: the path of a PNG below the query's folder, or None. The other fields are those of `Answer`.
    """

    id: str
    label: str | None
    annotator: str
    seconds: float | None
    skipped: bool
    mask: str | None
    kind: str | None = None
    idle: float | None = None
    class_seconds: float | None = None
    stroke_seconds: float | None = None
    reason: str = ""
    note: str = ""
    settles: bool = False


@dataclass(frozen=True)
class Verdict:
    """The outcome of all answers for one image.

    label: the class; None if everybody skipped the image. masks: the files of the maps that were drawn. tie:
    the classes that were given equally often, if nobody has settled it; empty otherwise.
    """

    label: str | None
    masks: list[Path]
    tie: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spent:
    """The answers of one kind, how many of them have a time, and their seconds; None if none has one."""

    answers: int
    timed: int
    seconds: float | None


@dataclass(frozen=True)
class Person:
    """The work of one person: images with a class, those of them with a map, and skipped ones.

    timed: how many of all these have a time. seconds, idle_seconds: their sums; None if nobody measured them.
    """

    name: str
    answers: int
    maps: int
    skipped: int
    timed: int
    seconds: float | None
    idle_seconds: float | None


@dataclass(frozen=True)
class Step:
    """The active seconds until a step of an answer: how many answers tell them, their mean and median."""

    answers: int
    mean: float
    median: float


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
        """Keep these answers. A person's new answer for an image replaces their earlier one.

        An answer that settles a tie stands beside the same person's own, which is part of the tie. It takes
        the place of an earlier decision, whoever made that. Names that differ in case or spaces alone are one
        person, who keeps the first spelling.

        All of the earlier answers hold until answers.json is written, so no map is written over another one.
        """
        before = {one.mask for one in self.kept if one.mask is not None}
        kept = {(one.id, one_person(one.annotator), one.settles): one for one in self.kept}
        spelt = {one_person(one.annotator): one.annotator for one in reversed(self.kept)}
        numbers = self._numbers()
        for answer in answers:
            if answer.settles:
                kept = {key: one for key, one in kept.items() if key[0] != answer.id or not one.settles}
            person = one_person(answer.annotator)
            name = spelt.setdefault(person, answer.annotator)
            mask = None
            if answer.mask is not None:
                number = numbers.setdefault(person, max(numbers.values(), default=-1) + 1)
                mask = f"drawn/{number}/{answer.id}.png"
                if mask in before:
                    mask = f"drawn/{number}-again/{answer.id}.png"
                out = io.BytesIO()
                Image.fromarray(answer.mask).save(out, format="png")
                write_bytes(self.folder / mask, out.getvalue())
            own = {field.name: getattr(answer, field.name) for field in dataclasses.fields(Kept)}
            kept[answer.id, person, answer.settles] = Kept(**own | {"mask": mask, "annotator": name})
        self._write(kept.values())
        for mask in before - {one.mask for one in self.kept}:
            (self.folder / mask).unlink(missing_ok=True)

    def withdraw(self, chosen: Callable[[Kept], bool]) -> list[Kept]:
        """Take the answers back that `chosen` is true of, and return them; their images are open again.

        Their maps are deleted.
        """
        gone = [one for one in self.kept if chosen(one)]
        if gone:
            self._write(one for one in self.kept if one not in gone)
        for one in gone:
            if one.mask is not None:
                (self.folder / one.mask).unlink(missing_ok=True)
        return gone

    def settle(self, name: str, label: str, annotator: str = "") -> None:
        """Let a person decide the class of an image to which others gave several classes.

        Their own answer stays beside the decision.
        """
        self.add([Answer(name, label, None, annotator, None, False, settles=True)])

    @property
    def own(self) -> list[Kept]:
        """The answers that people gave to images, without the decisions about ties."""
        return [one for one in self.kept if not one.settles]

    def of(self, name: str, annotator: str) -> Kept | None:
        """A person's own answer for an image, or None."""
        person = one_person(annotator)
        own = (one for one in self.own if one.id == name)
        return next((one for one in own if one_person(one.annotator) == person), None)

    def verdicts(self) -> dict[str, Verdict]:
        """The verdicts by id, for all images that somebody answered or skipped.

        The class is the one that most people gave; on a tie it is the one that was given first. An answer
        that settles a tie goes before all others. The maps are those of all people who drew one. An image
        counts as skipped if nobody gave a class.
        """
        by_id: dict[str, list[Kept]] = {}
        for one in self.kept:
            by_id.setdefault(one.id, []).append(one)
        return {name: self._verdict(answers) for name, answers in by_id.items()}

    def votes(self, name: str) -> dict[str, int]:
        """The number of people who gave an image each class, in the order in which they were given first."""
        own = [one for one in self.own if one.id == name]
        return dict(Counter(one.label for one in own if one.label is not None))

    def open(self, ids: Sequence[str], each: int = 1) -> list[str]:
        """The ids that have fewer than `each` answers."""
        there = Counter(one.id for one in self.own)
        return [name for name in ids if there[name] < each]

    def _verdict(self, answers: Sequence[Kept]) -> Verdict:
        said = [one for one in answers if not one.skipped]
        masks = [self.folder / one.mask for one in said if one.mask is not None]
        settled = [one.label for one in said if one.settles]
        if settled:
            return Verdict(settled[-1], masks)
        given = Counter(one.label for one in said if one.label is not None)
        if not given:
            return Verdict(None, masks)
        (label, most), *others = given.most_common()
        equal = [other for other, count in others if count == most]
        return Verdict(label, masks, (label, *equal) if equal else ())

    def _numbers(self) -> dict[str, int]:
        """The folder in drawn/ of each person who has a map."""
        drew = [one for one in self.kept if one.mask is not None]
        folders = {one_person(one.annotator): str(one.mask).split("/")[1] for one in drew}
        return {person: int(folder.removesuffix("-again")) for person, folder in folders.items()}

    def _write(self, kept: Iterable[Kept]) -> None:
        self.kept = list(kept)
        write_json(
            self.folder / "answers.json",
            {"format": FORMAT, "answers": [_spare(one) for one in self.kept]},
        )


def _spare(one: Kept) -> dict[str, Any]:
    """The entry of an answer in the file. What was not measured or said is left out."""
    rest = {field.name for field in dataclasses.fields(Kept) if field.default is not dataclasses.MISSING}
    return {name: value for name, value in dataclasses.asdict(one).items() if name not in rest or value}


def tally(answers: Iterable[Answers]) -> dict[str, Any]:
    """Count what people have done over several queries: images by outcome, answers and seconds by kind.

    If several people answer for one image, each of their answers counts. Seconds are None if nobody measured
    them. Images that `query import --skip-rest` gave up count for no annotator. Decisions about ties are not
    counted among the answers.

    The result can be written as JSON. `by_kind` has a `Spent` for each of ANSWER_KINDS that was given, and
    `by_person` a `Person` for each. `idle_seconds` and `steps` are there only if some answer tells them. The
    steps are `class` and `stroke`, until the class and the first stroke, and `done`, the seconds of those
    answers that have a first stroke.
    """
    answers = list(answers)
    verdicts = [verdict for one in answers for verdict in one.verdicts().values()]
    kept = [one for query in answers for one in query.own if one.annotator or not one.skipped]
    with_map = [one for one in kept if one.mask is not None and not one.skipped]
    label_only = [one for one in kept if one.mask is None and not one.skipped]
    idle, steps = _sum(one.idle for one in kept), _steps(kept)
    return {
        "labelled": sum(verdict.label is not None for verdict in verdicts),
        "maps": sum(bool(verdict.masks) for verdict in verdicts),
        "skipped": sum(verdict.label is None for verdict in verdicts),
        "annotators": len({one_person(one.annotator) for one in kept}),
        "answers_with_map": len(with_map),
        "answers_label_only": len(label_only),
        "seconds": _seconds(kept),
        "map_seconds": _seconds(with_map),
        "label_seconds": _seconds(label_only),
        **({} if idle is None else {"idle_seconds": idle}),
        "by_kind": {kind: dataclasses.asdict(spent) for kind, spent in _by_kind(kept).items()},
        "by_person": [dataclasses.asdict(person) for person in _by_person(kept)],
        **({"steps": {name: dataclasses.asdict(step) for name, step in steps.items()}} if steps else {}),
    }


def answer_kind(kept: Kept) -> str:
    """The kind of an answer, one of ANSWER_KINDS."""
    if kept.skipped:
        return "skipped"
    if kept.mask is None:
        return "class"
    return kept.kind or "map"


def _by_kind(kept: Sequence[Kept]) -> dict[str, Spent]:
    parts = {kind: [one for one in kept if answer_kind(one) == kind] for kind in ANSWER_KINDS}
    return {kind: Spent(len(part), _timed(part), _seconds(part)) for kind, part in parts.items() if part}


def _by_person(kept: Sequence[Kept]) -> list[Person]:
    """The work of each person, in the order of their first answers."""
    parts: dict[str, list[Kept]] = {}
    for one in kept:
        parts.setdefault(one_person(one.annotator), []).append(one)
    return [
        Person(
            name=part[0].annotator,
            answers=sum(not one.skipped for one in part),
            maps=sum(one.mask is not None and not one.skipped for one in part),
            skipped=sum(one.skipped for one in part),
            timed=_timed(part),
            seconds=_seconds(part),
            idle_seconds=_sum(one.idle for one in part),
        )
        for part in parts.values()
    ]


def _steps(kept: Sequence[Kept]) -> dict[str, Step]:
    drawn = [one for one in kept if not one.skipped and one.stroke_seconds is not None]
    found = {
        "class": [one.class_seconds for one in kept if not one.skipped and one.class_seconds is not None],
        "stroke": [one.stroke_seconds for one in drawn if one.stroke_seconds is not None],
        "done": [one.seconds for one in drawn if one.seconds is not None],
    }
    return {
        name: Step(len(values), round(fmean(values), 3), round(median(values), 3))
        for name, values in found.items()
        if values
    }


def _timed(kept: Iterable[Kept]) -> int:
    return sum(one.seconds is not None for one in kept)


def _seconds(kept: Iterable[Kept]) -> float | None:
    return _sum(one.seconds for one in kept)


def _sum(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return round(sum(measured), 3) if measured else None


def png_mask(path: Path) -> np.ndarray:
    """The pixels of a map that was kept, uint8 [H, W]."""
    return np.asarray(Image.open(path))
