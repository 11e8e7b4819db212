"""What is asked of people and what they answer, whichever tool they use (`label_studio`, `folder`)."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sal_fast._util.suggest import nearest
from sal_fast.data import files
from sal_fast.data.table import names_a_file
from sal_fast.errors import InputError

SHOWN = 20  # problems of one file


@dataclass(frozen=True)
class Asked:
    """What is asked of people.

    run: its name, so that a file of another run is refused. query: 0 is the start set. ids, images: what to
    look at, in order, and the picture files. maps: whether maps are wanted, or labels alone.
    """

    run: str
    query: int
    ids: list[str]
    images: list[Path]
    classes: list[str]
    maps: bool

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def refuse_others(self, run: object, query: object, place: str) -> None:
        """InputError where a file says that it is of another run or query."""
        if (run, query) != (self.run, self.query):
            renamed = "" if run == self.run else ", or give the run's folder the name that it had"
            raise InputError(
                f"{place} is of query {query!r} of run {run!r}, expected query {self.query} of {self.run!r}; "
                f"import the file of this query{renamed}"
            )

    def class_problem(self, label: str) -> str:
        return f"the class {label!r} is none of the run's{_meant(label, self.classes)}"

    def id_problem(self, name: str) -> str:
        """The nearest id is most often another image: one is meant where its last part fits."""
        last = _last(name)
        same = [one for one in self.ids if _last(one) == last]
        meant = f"; did you mean {same[0]!r}?" if len(same) == 1 else ""
        return f"the id {name!r} is none of this query's{meant}"


@dataclass(frozen=True)
class Answer:
    """One person's answer for one image.

    label: a class; None only where skipped. mask: uint8 [H, W] at the image's own (upright) size, 0 or 255,
    from a folder perhaps graded; None where none was drawn. annotator: "" where nobody said. seconds: None
    where nobody measured.
    """

    id: str
    label: str | None
    mask: np.ndarray | None
    annotator: str
    seconds: float | None
    skipped: bool


class Problems:
    """All that is wrong with one file, so that it is mended in one go."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[str] = []

    def add(self, place: str, what: str) -> None:
        self.found.append(f"{place}: {what}" if place else what)

    def check(self) -> None:
        """InputError with the first SHOWN of them, if there are any."""
        count = len(self.found)
        if count == 1:
            raise InputError(f"{self.file}, {self.found[0]}")
        if count:
            more = f", the first {SHOWN}" if count > SHOWN else ""
            raise InputError("\n  ".join([f"{self.file}: {count} problems{more}:", *self.found[:SHOWN]]))


def in_order(asked: Asked, answers: list[tuple[str, Answer]], problems: Problems) -> list[Answer]:
    """The answers, with where they stand, in the order of `asked.ids`; InputError if there are `problems`.

    A person answers an image once. Who skipped it and answered after all has answered.
    """
    given = Counter((answer.id, answer.annotator) for _, answer in answers if not answer.skipped)
    kept = []
    seen = set()
    for place, answer in answers:
        key = (answer.id, answer.annotator)
        if answer.skipped and (key in given or key in seen):
            continue
        if key in seen:
            who = repr(answer.annotator) if answer.annotator else "one person, no annotator is named"
            problems.add(place, f"a second answer by {who}; keep one of them")
        seen.add(key)
        kept.append(answer)
    problems.check()
    return sorted(kept, key=lambda answer: asked.row_of[answer.id])


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that becomes `out` when all went well. InputError where `out` holds anything."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already, perhaps with answers; choose a new folder with --out")
    out = out.resolve()
    aside = out.with_name(out.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        aside.replace(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def pictures(asked: Asked) -> Iterator[tuple[str, bytes, str]]:
    """(id, bytes, suffix) of every picture, so that any program shows it alike: upright, 8-bit JPEG or PNG.

    A JPEG stays one; what has to be written anew is written at quality 95. Raises InputError that names all
    files that cannot be read.
    """
    problems = Problems(f"query {asked.query}")
    for name, path in zip(asked.ids, asked.images, strict=True):
        if not names_a_file(name):
            raise InputError(f"id {name!r} cannot be used as a file name")
        try:
            file = files.read(path)
            pixels = files.rgb(file)
        except files.Unreadable as error:
            problems.add("", str(error))
            continue
        jpeg = file.data.startswith(b"\xff\xd8")
        if not problems.found:
            data = file.data if file.plain or file.grey else _encoded(pixels, jpeg)
            yield name, data, ".jpg" if jpeg else ".png"
    problems.check()


def _encoded(pixels: np.ndarray, jpeg: bool) -> bytes:
    stream = BytesIO()
    options: dict[str, Any] = {"format": "JPEG", "quality": 95} if jpeg else {"format": "PNG"}
    Image.fromarray(pixels).save(stream, **options)
    return stream.getvalue()


def _last(name: str) -> str:
    return name.rpartition("/")[2].casefold()


def _meant(word: str, known: list[str]) -> str:
    close = nearest(word, known)
    return f"; did you mean {close!r}?" if close else ""
