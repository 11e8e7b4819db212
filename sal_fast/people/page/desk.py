"""The desk of one query: who has which picture, what was drawn so far, and what was answered."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sal_fast._util.files import read_json, write_json
from sal_fast.data import files
from sal_fast.errors import InputError
from sal_fast.people import question as questions
from sal_fast.people.answers import Answers, Kept, png_mask
from sal_fast.people.odd_maps import asked_back
from sal_fast.people.page import runs
from sal_fast.people.question import KINDS, Answer, Question, one_person
from sal_fast.people.suggested import Suggested

LEASE = 600.0  # seconds without a sign of life, after which a person's picture goes to others
LONGEST = {"person": 100, "reason": 500, "note": 5000}  # characters of what people write
MOST_SECONDS = 1e6

ODD = {
    "empty": "This map is empty. Does nothing in the picture show the class?",
    "full": "This map covers {share:.0%} of the picture. Is it inverted?",
    "inverted": "This map marks the edge of the picture, and little of its middle. Is it inverted?",
}

Ask = Literal["brush", "box", "points", "accept", "mixed"]
Says = Mapping[str, Any]


class Gone(InputError):
    """The query is not the one that is asked now."""


class AskBack(InputError):
    """A map looks wrong, and the person may insist on it. `kind` is its `odd_maps.Odd`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Asked:
    """A question on the desk.

    folder: the folder that the answers are kept in.
    opened: gives the answers, so that they can be changed, and lets nobody else change them meanwhile.
    suggested: the model's maps, if there is a model already.
    purpose: the reason for the question, which the page shows. It is "round" for a query of the run, and
        "classes first" or "maps of test images" before there is a run.
    """

    question: Question
    folder: Path
    opened: Callable[[], AbstractContextManager[Answers]]
    suggested: Suggested | None = None
    purpose: str = "round"


class Desk:
    """Hands pictures out, and keeps drafts and answers. Its methods can be called from several threads.

    Args:
        asked: the question.
        drafts: a folder for what is not finished yet.
        ask: the way in which people make maps.
        each: the number of people who answer each picture.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        asked: Asked,
        drafts: Path,
        ask: Ask = "brush",
        each: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.asked, self.question, self.folder = asked, asked.question, asked.folder
        self.drafts, self.ask, self.each, self.clock = drafts, ask, each, clock
        self._lock = threading.RLock()
        self._held: dict[str, dict[str, float]] = {}  # id: person: the time of the last sign of life
        self._read: tuple[tuple[int, int, int], Answers] | None = None

    def take_over(self, other: Desk) -> None:
        """Let people keep the pictures that they have at the other desk, which this one takes the place of.

        A request that still works at the other desk then counts here, too.
        """
        self._lock, self._held = other._lock, other._held

    # --- what there is -----------------------------------------------------------------------------------

    def answers(self) -> Answers:
        """The answers as they are on the disk now; others may have imported some."""
        path = self.folder / "answers.json"
        there = path.stat() if path.exists() else None
        # a file that is written anew is another one, even if it is as long and as old as the one before
        stamp = (there.st_mtime_ns, there.st_size, there.st_ino) if there else (0, 0, 0)
        with self._lock:
            if self._read is None or self._read[0] != stamp:
                self._read = stamp, Answers(self.folder)
            return self._read[1]

    def complete(self) -> bool:
        """True if every picture has as many answers as are wanted."""
        return not self.answers().open(self.question.ids, self.each)

    def counts(self, person: str) -> dict[str, int]:
        """The numbers of images in each state, for the page.

        `mine` counts the person's own answers, and `held_by_others` the open images that others have.
        """
        there, who = self.answers(), one_person(person)
        verdicts = there.verdicts()
        left = set(there.open(self.question.ids, self.each))
        with self._lock:
            self._forget_the_absent()
            held = sum(any(one != who for one in self._held.get(name, ())) for name in left)
        return {
            "images": len(self.question.ids),
            "answered": len(self.question.ids) - len(left),
            "skipped": sum(one.label is None for one in verdicts.values()),
            "mine": len(self._own(who)),
            "held_by_others": held,
            "ties": sum(bool(one.tie) for one in verdicts.values()),
            "each": self.each,
        }

    def seconds_each(self, person: str) -> float | None:
        """The mean active seconds of a person's answers; None if there are none."""
        who = one_person(person)
        own = [
            one.seconds
            for one in self.answers().own
            if one_person(one.annotator) == who and one.seconds is not None
        ]
        return sum(own) / len(own) if own else None

    def mine(self, person: str) -> list[dict[str, Any]]:
        """A person's own answers, the oldest first."""
        question = self.question
        return [
            {
                "key": question.key(one.id),
                "label": one.label,
                "skipped": one.skipped,
                "kind": one.kind,
                "number": question.row_of[one.id] + 1,
            }
            for one in self._own(one_person(person))
        ]

    def _own(self, who: str) -> list[Kept]:
        """A person's answer for each image, or what they decided about an image that they did not answer."""
        own = [one for one in self.answers().kept if one_person(one.annotator) == who]
        answered = {one.id for one in own if not one.settles}
        mine = [one for one in own if not one.settles or one.id not in answered]
        return [one for one in mine if one.id in self.question.row_of]

    def ties(self) -> list[dict[str, Any]]:
        """The pictures whose classes were given equally often."""
        there = self.answers()
        return [
            {
                "key": self.question.key(name),
                "number": self.question.row_of[name] + 1,
                "votes": there.votes(name),
            }
            for name, verdict in there.verdicts().items()
            if verdict.tie
        ]

    # --- pictures ----------------------------------------------------------------------------------------

    def take(self, person: str, count: int, held: Iterable[str] = ()) -> list[dict[str, Any]]:
        """The pictures that a person has now: those that they held already come first.

        Returns fewer than `count`, or none, if nothing is left for this person.
        """
        who = named(person)
        with self._lock:
            self._forget_the_absent()
            kept = [name for key in held if (name := self.question.id_of.get(str(key))) is not None]
            before = [name for name, people in self._held.items() if who in people]
            mine = [name for name in dict.fromkeys((*kept, *before)) if self._is_open(name, who)]
            for name in self.question.ids:
                if len(mine) >= count:
                    break
                if name not in mine and self._is_open(name, who):
                    mine.append(name)
            mine = mine[:count]
            for name in mine:
                self._held.setdefault(name, {})[who] = self.clock()
        return [self.picture(person, self.question.key(name)) for name in mine]

    def release(self, person: str, keys: Iterable[str]) -> None:
        """Give pictures back, so that others can have them."""
        who = one_person(person)
        with self._lock:
            for key in keys:
                name = self.question.id_of.get(str(key))
                if name is not None:
                    self._held.get(name, {}).pop(who, None)

    def picture(self, person: str, key: str) -> dict[str, Any]:
        """All that the page needs to show a picture to a person."""
        name = self.id_of(key)
        width, height = self.size(name)
        answer = self.answers().of(name, person)
        label = self.question.labels.get(name)
        return {
            "key": key,
            "number": self.question.row_of[name] + 1,
            "width": width,
            "height": height,
            "wants_map": self.question.wants_map(name),
            "ask": self.ask,
            "given": None if label is None else {"label": label},
            "suggested": self._suggested(name) if self.question.wants_map(name) else None,
            "answer": None if answer is None else self._saved(answer),
            "draft": self._draft(person, name),
        }

    def id_of(self, key: str) -> str:
        """The id of a picture of this query. Raises Gone for any other key."""
        name = self.question.id_of.get(key)
        if name is None:
            raise Gone("this picture is not in the query that is asked now; load the page again")
        return name

    def path(self, key: str) -> Path:
        """The file of a picture."""
        return self.question.images[self.question.row_of[self.id_of(key)]]

    def size(self, name: str) -> tuple[int, int]:
        """The (width, height) of an image, upright."""
        return _size(self.question.images[self.question.row_of[name]])

    def small(self, name: str, label: str | None) -> np.ndarray | None:
        """The model's map of a class of an image, uint8 [h, w]; None if there is none."""
        found = self.asked.suggested
        row = None if found is None else found.of(name)
        if found is None or row is None or label not in self.question.classes:
            return None
        place = np.flatnonzero(found.classes[row] == self.question.classes.index(label))
        return found.maps[row, place[0]] if len(place) else None

    # --- answers -----------------------------------------------------------------------------------------

    def answer(self, person: str, key: str, says: Says) -> None:
        """Keep a person's answer. Raises InputError if it cannot be used, and AskBack if its map is odd.

        An answer that settles a tie is a class alone.
        """
        name, annotator = self.id_of(key), " ".join(str(person).split())
        named(annotator)
        made = self._answer(name, annotator, says)
        if made.mask is not None and not says.get("sure"):
            refuse_odd(made.mask)
        with self.asked.opened() as there:
            there.add([made])
        self._draft_file(person, name).unlink(missing_ok=True)
        self.release(person, [key])

    def withdraw(self, person: str, key: str) -> None:
        """Take a person's answer back."""
        name, who = self.id_of(key), one_person(person)
        with self.asked.opened() as there:
            there.withdraw(lambda one: one.id == name and one_person(one.annotator) == who)

    def draft(self, person: str, key: str, says: Says) -> None:
        """Keep what a person has drawn so far, so that a closed browser loses nothing."""
        named(person)
        name = self.id_of(key)
        made = self._answer(name, person, says, finished=False)  # it refuses what could not be read again
        kept = {one: getattr(made, one) for one in SAVED if one != "runs"}
        kept["runs"] = None if made.mask is None else says["runs"]
        write_json(self._draft_file(person, name), kept)

    def _answer(self, name: str, person: str, says: Says, finished: bool = True) -> Answer:
        label, skipped = says.get("label"), says.get("skipped") is True
        if label is not None and label not in self.question.classes:
            raise InputError(self.question.class_problem(str(label)))
        if finished and not skipped and label is None:
            raise InputError("choose a class first, or skip the picture")
        lengths, kind, mask = says.get("runs"), says.get("kind"), None
        settles = says.get("settles") is True
        if lengths is not None and self.question.wants_map(name) and not settles:
            mask = runs.decode(lengths, self.size(name))
        if kind is not None and kind not in KINDS:
            raise InputError(f"unknown kind of map {kind!r}; load the page again")
        return Answer(
            id=name,
            label=None if skipped else label,
            mask=None if skipped else mask,
            annotator=person,
            seconds=_seconds(says, "seconds") or 0.0,
            skipped=skipped,
            kind=None if skipped or mask is None else kind or "drawn",
            idle=_seconds(says, "idle"),
            class_seconds=_seconds(says, "class_seconds"),
            stroke_seconds=_seconds(says, "stroke_seconds"),
            reason=_text(says, "reason") if skipped else "",
            note=_text(says, "note"),
            settles=settles,
        )

    def _saved(self, kept: Kept) -> dict[str, Any]:
        mask = None if kept.mask is None else runs.encode(png_mask(self.folder / kept.mask))
        own = {name: getattr(kept, name) for name in SAVED if name != "runs"}
        return own | {"runs": mask, "seconds": kept.seconds or 0.0, "idle": kept.idle or 0.0}

    def _suggested(self, name: str) -> dict[str, Any] | None:
        found = self.asked.suggested
        row = None if found is None else found.of(name)
        if found is None or row is None:
            return None
        height, width = found.maps.shape[2:]
        return {
            "width": width,
            "height": height,
            "classes": [self.question.classes[number] for number in found.classes[row]],
            "shares": [round(float(share), 4) for share in found.shares[row]],
            "values": [base64.b64encode(small.tobytes()).decode() for small in found.maps[row]],
        }

    def _draft(self, person: str, name: str) -> dict[str, Any] | None:
        file = self._draft_file(person, name)
        return read_json(file) if file.exists() else None

    def _draft_file(self, person: str, name: str) -> Path:
        # not `Question.key`, because a run whose folder was renamed still has its drafts
        who, what = (
            hashlib.blake2b(one.encode(), digest_size=8).hexdigest() for one in (one_person(person), name)
        )
        return self.drafts / f"{self.question.query_index:03d}" / who / f"{what}.json"

    # --- who has what ------------------------------------------------------------------------------------

    def _is_open(self, name: str, who: str) -> bool:
        """True if a person may have an image: they have not answered it, and not enough others have it."""
        by = {one_person(one.annotator) for one in self.answers().own if one.id == name}
        others = (by | self._held.get(name, {}).keys()) - {who}
        return who not in by and len(others) < self.each

    def _forget_the_absent(self) -> None:
        late = self.clock() - LEASE
        for people in self._held.values():
            for person in [person for person, seen in people.items() if seen < late]:
                del people[person]


# What the page sends of a picture, and gets back.
SAVED = (
    *("label", "skipped", "reason", "note", "kind", "runs"),
    *("seconds", "idle", "class_seconds", "stroke_seconds"),
)


def named(person: str) -> str:
    """The key of a person who works on the page. Raises InputError for an empty or a very long name."""
    who = one_person(str(person))
    if not who:
        raise InputError("type your name first, so that your answers can be told from those of others")
    if len(who) > LONGEST["person"]:
        raise InputError(f"a name has at most {LONGEST['person']} characters")
    return who


def refuse_odd(mask: np.ndarray) -> None:
    """Raise AskBack for a map that is probably not meant."""
    odd = asked_back(mask)
    if odd is not None:
        share = float((mask > 127).mean())
        raise AskBack(odd, ODD[odd].format(share=share))


@lru_cache(maxsize=4096)
def _size(path: Path) -> tuple[int, int]:
    return files.read(path).size


@lru_cache(maxsize=4)
def shown(path: Path, mark: str = "") -> tuple[bytes, str]:
    """The bytes and the suffix of a picture that any browser shows; the last few are kept.

    Another `mark` reads the file anew.
    """
    return questions.picture(path)


def _seconds(says: Says, name: str) -> float | None:
    value = says.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_SECONDS:
        raise InputError(f"{name}: expected a number of seconds, got {value!r}")
    return round(float(value), 3)


def _text(says: Says, name: str) -> str:
    text = says.get(name) or ""
    if not isinstance(text, str) or len(text) > LONGEST[name]:
        raise InputError(f"the {name} has at most {LONGEST[name]} characters")
    return text.strip()
