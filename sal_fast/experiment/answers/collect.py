"""The answers to a run's queries, written as a data set that a run, `data check` and anybody can read."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sal_fast.data.table import places
from sal_fast.errors import InputError
from sal_fast.experiment.answers.people import Query, images_of, posed, queries
from sal_fast.experiment.record import PEOPLE, RunFolder
from sal_fast.people.answers import Answers, Verdict
from sal_fast.people.question import new_folder

TABLE = "answers.csv"
COLUMNS = (
    "query", "id", "image", "class", "annotator", "label", "skipped", "settles", "mask", "kind", "seconds",
    "reason", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Collected:
    """The content of a collected data set.

    images: the number of images with a class. maps: how many of them have a map. skipped: the ids of the
    images that everybody skipped.
    """

    images: int
    maps: int
    skipped: list[str]


def collect(folder: RunFolder, out: Path) -> Collected:
    """Write the images that people gave a class to the new folder `out`, with their classes and maps.

    images/<class>/ has copies of the image files. masks/<class>/ has the map of an image, or a folder with
    the maps of several people, which every reader of the data set averages, as the run did. answers.csv has a
    line for each answer, those to skipped images among them. What people said before the run began, about
    images that it is tested on, is there, too. Raises InputError if nobody has given a class yet, if `out`
    holds anything, or if an image is missing; then nothing is written.
    """
    later = queries(folder)
    first, files = _first(folder)
    asked = [*first, *later]
    verdicts = {name: one for query in asked for name, one in query.answers.verdicts().items()}
    given = {name: one for name, one in verdicts.items() if one.label is not None}
    if not given:
        raise InputError(f"{folder.path}: nobody has given a class yet; import answers first")
    where = places(folder.path.name, list(given), [str(one.label) for one in given.values()])
    place = dict(zip(given, where, strict=True))
    files |= images_of(folder, [query for query in later if query.answers.kept])
    with new_folder(out) as aside:
        try:
            images = {
                name: _copied(files[name], aside, path + files[name].suffix) for name, path in place.items()
            }
            masks: dict[Path, str] = {}
            for name, verdict in given.items():
                masks |= _masks(verdict, aside, f"masks/{place[name].removeprefix('images/')}")
        except OSError as error:
            raise InputError(f"{error.strerror}: {error.filename}; restore it") from None
        (aside / TABLE).write_bytes(_table(asked, verdicts, images, masks))
    skipped = [name for name in verdicts if name not in given]
    return Collected(len(given), sum(bool(one.masks) for one in given.values()), skipped)


def _first(folder: RunFolder) -> tuple[list[Query], dict[str, Path]]:
    """The questions about images without any class, from before the run, and the files of these images."""
    found: list[Query] = []
    files: dict[str, Path] = {}
    for name in ("classes", "maps"):
        place = folder.path / PEOPLE / "first" / name
        asked = posed(place, folder.path.name)
        if asked is not None:
            found.append(Query(asked.query_index, asked.ids, Answers(place), waits=False))
            files |= zip(asked.ids, asked.images, strict=True)
    return found, files


def _masks(verdict: Verdict, out: Path, place: str) -> dict[Path, str]:
    """Copy the maps of an image; return where each is now, below `out`."""
    if len(verdict.masks) == 1:
        return {verdict.masks[0]: _copied(verdict.masks[0], out, f"{place}.png")}
    numbered = enumerate(verdict.masks, start=1)
    return {path: _copied(path, out, f"{place}/{number:03d}.png") for number, path in numbered}


def _copied(path: Path, out: Path, name: str) -> str:
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, out / name)
    return name


def _table(
    asked: Sequence[Query],
    verdicts: Mapping[str, Verdict],
    images: Mapping[str, str],
    masks: Mapping[Path, str],
) -> bytes:
    """The content of answers.csv, with a line for each answer in the order in which they were given."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    for query in asked:
        for one in query.answers.kept:
            mask = None if one.mask is None else masks.get(query.answers.folder / one.mask)
            line = {
                "query": "first" if query.index < 0 else query.index,
                "id": one.id,
                "image": images.get(one.id),
                "class": verdicts[one.id].label,
                "annotator": one.annotator,
                "label": one.label,
                "skipped": "yes" if one.skipped else "",
                "settles": "yes" if one.settles else "",
                "mask": mask,
                "kind": one.kind,
                "seconds": one.seconds,
                "reason": one.reason,
                "note": one.note,
            }
            writer.writerow(line)
    return text.getvalue().encode()
