"""The text of `sal-fast query status`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sal_fast.experiment.answers.people import Query
from sal_fast.people.agreement import agreement
from sal_fast.people.answers import tally

KINDS = {"map": "of an unknown kind"}  # kinds of maps that are spelt in another way here


def status_lines(run: Path, queries: Sequence[Query]) -> Iterator[str]:
    """Tell the queries, the people, the ties and the agreement of a run, line by line."""
    for query in queries:
        yield f"query {query.index}: {_counts(query)}"
    people = tally(query.answers for query in queries)["by_person"]
    if people:
        yield "people:"
    for one in people:
        skipped = f", {one['skipped']} skipped" if one["skipped"] else ""
        yield (
            f"  {one['name'] or '(no name)'}: {one['answers']} answered, {one['maps']} with a map{skipped}"
            f"{_time(one['seconds'])}"
        )
    yield from _ties(run, queries)
    yield from _agreement(queries)


def voted(votes: Mapping[str, int]) -> str:
    """Say how often each class was given to an image."""
    return ", ".join(f"{label!r} {count} x" for label, count in votes.items()) or "nobody gave a class"


def _counts(query: Query) -> str:
    count, waiting = tally([query.answers]), query.answers.open(query.ids)
    said = f"{len(query.ids)} images, {count['labelled']} with a class, {count['maps']} with a map"
    if count["skipped"]:
        said += f", {count['skipped']} skipped"
    if waiting:
        said += f", {len(waiting)} open"
    kinds = _kinds(count["by_kind"])
    if kinds:
        said += f"; maps: {kinds}"
    said += _time(count["seconds"])
    return said + ("; the run waits for it" if query.waits and waiting else "")


def _kinds(by_kind: Mapping[str, Any]) -> str:
    maps = {kind: one["answers"] for kind, one in by_kind.items() if kind not in ("class", "skipped")}
    return ", ".join(f"{count} {KINDS.get(kind, kind)}" for kind, count in maps.items())


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"; {seconds:g} s"


def _ties(run: Path, queries: Sequence[Query]) -> Iterator[str]:
    """The images whose class nobody has settled, and how to settle those that can be."""
    for query in queries:
        ties = [name for name, verdict in query.answers.verdicts().items() if verdict.tie]
        for name in ties:
            yield f"tie in query {query.index}: {name!r}, {voted(query.answers.votes(name))}"
        if ties and query.waits:
            yield "the class that was given first counts, until somebody decides:"
            yield f"  sal-fast query settle {run} --image ID --label CLASS --annotator NAME"


def _agreement(queries: Sequence[Query]) -> Iterator[str]:
    """The agreement of people who answered for the same images."""
    found = agreement([query.answers for query in queries])
    if found is None:
        return
    if found.images:
        kappa = f"kappa {found.kappa:.2f}" if found.kappa is not None else f"no kappa ({found.no_kappa})"
        yield f"agreement on classes: {kappa}, {found.same:.0%} alike, on {found.images} images"
    if found.dice is not None:
        yield f"agreement on maps: Dice {found.dice:.2f}, on {found.map_images} images"
