"""A table of samples: which images exist, what they show, where their masks are, which split they are in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from sal_fast.data.meaning import Foreground, Rule
from sal_fast.errors import InputError

SPLITS = ("train", "val", "test")
UNLABELLED = -1  # the label of an image whose class is not known yet


Mask = Path | tuple[Path, ...]  # a file, a folder of annotators' files, or the files of several instances


class Sample(NamedTuple):
    """One image of a data set, and what is known of it.

    id: its name in every file of a run; it must be the only one, and a relative path without a suffix may be
        used (`red/001`), because maps are written to `<folder>/<id>.png`.
    image: the image file; `docs/data.md` lists the formats.
    label: the name of its class, or "" if people have yet to give one.
    mask: the file of its human map; or a folder that holds several annotators' masks, which are averaged; or
        a tuple of files, one for each object (instance) in the image, which are united; or None.
    split: train, val or test, or "" in all rows if the splits are to be drawn.
    group: what the image shares with others that must be in the same split, such as a patient or a video; ""
        in all rows if there are no groups.
    subgroup: the part of the images whose figures are told apart, such as a hospital or a camera. It may lie
        in all splits; "" if it is not known.
    """

    id: str
    image: str | Path
    label: str = ""
    mask: str | Path | tuple[Path, ...] | None = None
    split: str = ""
    group: str = ""
    subgroup: str = ""


@dataclass(frozen=True)
class Table:
    """All samples of a data set in the order of their ids; `make_table` builds one.

    Every column is a list with one entry per sample; `group` and `subgroup` are empty lists if no sample has
    any.

    name: what the data set is called on screen and in reports.
    classes: the names of the classes, in the order of their numbers.
    labels: the number of each sample's class, or UNLABELLED if people have yet to give one.
    masks: see `Sample.mask`; None if there is no human map.
    split: train, val or test; "" until `sal_fast.data.splits` fills it.
    group: the unit that a split never cuts, such as a patient.
    subgroup: the part of the images whose figures are told apart; "" if it is not known.
    rule: how mask files are read.
    notes: sentences for the user: how the files were read, and which of them are not used.
    """

    name: str
    classes: list[str]
    ids: list[str]
    images: list[Path]
    labels: list[int]
    masks: list[Mask | None]
    split: list[str] = field(default_factory=list)
    group: list[str] = field(default_factory=list)
    subgroup: list[str] = field(default_factory=list)
    rule: Rule = field(default_factory=Rule)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, split: str) -> list[int]:
        """The row numbers of one split, in order."""
        return [row for row, name in enumerate(self.split) if name == split]

    def class_name(self, row: int) -> str:
        """The name of a sample's class, or "" if it is not known."""
        return "" if self.labels[row] == UNLABELLED else self.classes[self.labels[row]]

    def with_split(self, split: list[str]) -> Table:
        """The same samples in other splits."""
        return replace(self, split=split)


def make_table(
    name: str, samples: Iterable[Sample | Mapping[str, Any]], foreground: Foreground | None = None
) -> Table:
    """Build the table of a data set from its samples, in any order.

    Classes are numbered in the order of their names.

    Args:
        name: what the data set is called on screen and in reports.
        samples: `Sample`s, or dictionaries with the same fields.
        foreground: a function from the pixels of a mask file, as Pillow decodes them (uint8 [H, W] or
            [H, W, 3], the indices of a palette), to its foreground, bool [H, W], or a masked array of
            numpy.ma that leaves out pixels which are neither foreground nor background; None if the data set
            has no rule of its own.

    Raises:
        InputError: there is no sample, an id occurs twice or cannot be a file name, a split is unknown, or
            some samples have a group and others not.
        TypeError: a dictionary lacks `id` or `image`, or has a field that `Sample` does not have.
    """
    rows = [sample if isinstance(sample, Sample) else Sample(**sample) for sample in samples]
    rows.sort(key=lambda row: row.id)
    if not rows:
        raise InputError(f"{name}: there are no samples")
    repeated = [sample for sample, count in Counter(row.id for row in rows).items() if count > 1]
    if repeated:
        raise InputError(f"{name}: id {repeated[0]!r} stands for several images; every id must be its own")
    for row in rows:
        if not names_a_file(row.id):
            raise InputError(
                f"{name}: id {row.id!r} cannot be used as a file name: expected UTF-8, "
                f"parts of at most 250 bytes, no '.', '..', '\\' or leading '/'"
            )
        if row.split not in (*SPLITS, ""):
            raise InputError(
                f"{name}: {row.id!r} has the split {row.split!r}; expected {', '.join(SPLITS)} or nothing"
            )
    alone = next((row.id for row in rows if not row.group), None)
    if alone is not None and any(row.group for row in rows):
        raise InputError(
            f"{name}: {alone!r} has no group, others have, so nobody can tell which images belong into one "
            f"split with it; give every image a group (its own name, if it stands alone), or none: "
            f"--columns group= leaves the column out"
        )
    classes = sorted({row.label for row in rows} - {""})
    return Table(
        name=name,
        classes=classes,
        ids=[row.id for row in rows],
        images=[Path(row.image) for row in rows],
        labels=numbered([row.label for row in rows], classes),
        masks=[Path(row.mask) if isinstance(row.mask, str) else row.mask for row in rows],
        split=[row.split for row in rows],
        group=filled([row.group for row in rows]),
        subgroup=filled([row.subgroup for row in rows]),
        rule=Rule(own=foreground),
    )


def filled(column: list[str]) -> list[str]:
    """The column, or an empty list if none of its entries says anything."""
    return column if any(column) else []


def numbered(names: Iterable[str], classes: Iterable[str]) -> list[int]:
    """The number of each class name; UNLABELLED for "". Raises KeyError for any other name."""
    number = {"": UNLABELLED} | {name: label for label, name in enumerate(classes)}
    return [number[name] for name in names]


def names_a_file(sample: str) -> bool:
    """True if an id is the one spelling of a relative path, so that `<folder>/<id>.png` is its own file."""
    path = PurePosixPath(sample)
    try:
        sizes = [len(part.encode()) for part in path.parts]
    except UnicodeEncodeError:
        return False
    plain = str(path) == sample and not path.is_absolute() and ".." not in path.parts
    return plain and bool(sizes) and max(sizes) <= 250 and not {"\\", "\0"} & set(sample)


def places(name: str, ids: Sequence[str], labels: Sequence[str]) -> list[str]:
    """The path of each image in a new plain folder, without its ending. No two images get the same path.

    An image without a label goes to the pool. Raises InputError, which calls the data set `name`, if a label
    cannot be the name of a folder.
    """
    taken: set[str] = set()
    found = []
    for one, label in zip(ids, labels, strict=True):
        if label and (label in (".", "..") or label.startswith(".") or set("/\\\0") & set(label)):
            raise InputError(f"{name}: class {label!r} cannot be the name of a folder; rename it")
        folder = f"images/{label}" if label else "pool"
        place = f"{folder}/{one.removeprefix(f'{label}/').removeprefix('pool/').replace('/', '_')}"
        while place.casefold() in taken:
            place += "_"
        taken.add(place.casefold())
        found.append(place)
    return found
