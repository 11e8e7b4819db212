"""The state of a run's queries to people: what is answered, by whom, and where answers disagree."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sal_fast.people.answers import Answers, Kept
from sal_fast.people.question import KINDS, one_person

OTHER = "unknown"  # the kind of a map that has none, as of answers that are older than kinds


@dataclass(frozen=True)
class Query:
    """One query, and the answers to it. `ids` are its images."""

    number: int
    ids: Sequence[str]
    answers: Answers


@dataclass(frozen=True)
class Work:
    """What was done, by everybody or by one person.

    images: how many images somebody answered or skipped. skipped: how many of them nobody gave a class.
    maps: how many maps there are. kinds: how many there are of each kind. seconds: None if nobody measured.
    """

    images: int
    skipped: int
    maps: int
    kinds: dict[str, int]
    seconds: float | None


@dataclass(frozen=True)
class Tie:
    """An image to which several classes were given equally often. votes: the classes, the first one first."""

    query: int
    id: str
    votes: dict[str, int]


def work(kept: Sequence[Kept]) -> Work:
    """Sum up some answers."""
    said = {one.id for one in kept if not one.skipped}
    seen = {one.id for one in kept}
    counts = Counter(one.kind or OTHER for one in kept if one.mask is not None and not one.skipped)
    seconds = [one.seconds for one in kept if one.seconds is not None]
    return Work(
        images=len(seen),
        skipped=len(seen - said),
        maps=counts.total(),
        kinds={kind: counts[kind] for kind in (*KINDS, OTHER) if counts[kind]},
        seconds=sum(seconds) if seconds else None,
    )


def people(queries: Iterable[Query]) -> dict[str, Work]:
    """What each person did, by name as it was spelt first; "" is somebody without a name.

    Images that `query import --skip-rest` gave up are nobody's.
    """
    by_person: dict[str, list[Kept]] = {}
    for query in queries:
        for one in query.answers.kept:
            if one.annotator or not one.skipped:
                by_person.setdefault(one_person(one.annotator), []).append(one)
    return {answers[0].annotator: work(answers) for answers in by_person.values()}


def votes(answers: Answers, name: str) -> dict[str, int]:
    """How many people gave each class to an image, the class that was given first first."""
    labels = [one.label for one in answers.kept if one.id == name and not one.skipped]
    return dict(Counter(label for label in labels if label is not None))


def ties(queries: Iterable[Query]) -> list[Tie]:
    """The images whose class is not settled, in the order of their queries."""
    found = []
    for query in queries:
        verdicts = query.answers.verdicts()
        for name in query.ids:
            if name in verdicts and verdicts[name].tie:
                found.append(Tie(query.number, name, votes(query.answers, name)))
    return found
