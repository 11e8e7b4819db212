"""Formats in which annotation files name images, and mark what is in them with labelled shapes.

One rule gives the class of an image in all of them. If the image as a whole has one name (a flag, tag or
choice), that is its class. Else its class is the label whose shapes cover most of its pixels, and the first
in the alphabet of several that cover as many. The mask is the union of that label's shapes, or of all shapes
if none has the class's name.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from sal_fast.data.readers.base import (
    Look,
    Options,
    Reader,
    Reading,
    as_text,
    holds,
    is_picture,
    sample_id,
    some,
    split_in,
    walk,
)
from sal_fast.data.readers.made import Found, Picture, naming
from sal_fast.data.readers.shapes import Draw, union
from sal_fast.errors import InputError

SEVERAL = "images with several labels, whose class is the one that covers most pixels"


class Marks(NamedTuple):
    """What one annotator says of an image.

    shapes: the shapes of each label; the label "" stands for shapes without one.
    named: the names of the image as a whole.
    """

    shapes: Mapping[str, Sequence[Draw]]
    named: Sequence[str] = ()


class Entry(NamedTuple):
    """What an annotation file says of one image.

    file: the file that holds the shapes. part: what messages call the image's part of it.
    name: the image's file, as the annotation file spells it.
    image: the image itself; None if it is not there.
    marks: those of each annotator.
    id: the sample's id; "" for the image's path below the folder that is read.
    fields: what else the file says of the image, by name; its group and subgroup are among them.
    """

    file: Path
    part: str
    name: str
    image: Path | Picture | None
    marks: Sequence[Marks]
    split: str = ""
    id: str = ""
    fields: Mapping[str, Any] = MappingProxyType({})


class Source(NamedTuple):
    """An annotation file, or a folder of one file for each image, and what is needed to read it."""

    path: Path
    split: str
    pictures: Pictures
    options: Options
    reading: Reading


class Annotations(Reader):
    """A reader of annotation files. A format says how these are found, and gives an `Entry` for each image.

    suffix: the ending of such a file. levels: how many folders below the given one it may lie.
    marks: its first byte, and words that occur in it.
    why: what `looks` says of it. expected: the end of every error.
    """

    suffix = ".json"
    levels = 0
    marks: tuple[bytes, ...]
    why: str
    expected: str

    def entries(self, source: Source) -> Iterator[Entry]:
        """What a source says of each image. Any error may be raised: `read` makes an InputError of it."""
        raise NotImplementedError

    def files(self, path: Path) -> list[Path]:
        """The annotation files that a path stands for."""
        files = [path] if path.is_file() else some(path, [self.suffix], self.levels)
        return [file for file in files if holds(file, *self.marks)]

    def sources(self, path: Path) -> dict[Path, str]:
        """What is read, with its split."""
        files = self.files(path) or ([path] if path.is_file() else [])
        if len(files) != 1:
            raise InputError(
                f"{path}: {len(files)} annotation files in it, expected one; {self.expected}, or name one"
            )
        return {files[0]: ""}

    def looks(self, path: Path) -> Look | None:
        files = self.files(path)
        return Look(f"{files[0].name} {self.why}") if files else None

    def read(self, path: Path, options: Options) -> Reading:
        root = path if path.is_dir() else path.parent
        if path.is_file() and root.name == "annotations":
            root = root.parent  # the images lie beside this folder
        reading, pictures = Reading(), Pictures(root)
        for file, split in self.sources(path).items():
            reading.used.add(file)
            with naming(file, "the annotations", self.expected):
                self._read(Source(file, split, pictures, options, reading))
        reading.draw_splits_if_only_train()
        return reading

    def _read(self, source: Source) -> None:
        path, reading, root = source.path, source.reading, source.pictures.root
        before, missing = len(reading.found), []
        for entry in self.entries(source):
            if entry.image is None:
                missing.append(entry.name)
            elif (row := _sample(entry, entry.image, source)) is not None:
                reading.found.append(row)
        for name in missing:
            reading.leave_out(name, f"images in {path.name} that are not below {root}")
        if len(reading.found) == before:
            if not missing:
                raise InputError(f"{path}: no image in it has a class; {self.expected}")
            raise InputError(
                f"{path}: none of its {len(missing)} images was found below {root} (the first is "
                f"{missing[0]!r}); put the images there"
            )


def _sample(entry: Entry, image: Path | Picture, source: Source) -> Found | None:
    """The sample of an entry whose image is there; None if it has no class."""
    reading, several = source.reading, len(entry.marks) > 1
    shown = f"{entry.file.name} {entry.part}" if isinstance(image, Picture) else image
    name = entry.id or sample_id(entry.file if isinstance(image, Picture) else image, source.pictures.root)
    given = [
        _judged(entry.file, f"{entry.part}{f', annotation {n}' * several}", marks)
        for n, marks in enumerate(entry.marks, start=1)
    ]
    labels = Counter(label for label, _ in given if label).most_common(2)
    if not labels:
        reading.leave_out(shown, "no label, so no class")
        return None
    if len(labels) > 1 and labels[0][1] == labels[1][1]:
        reading.leave_out(shown, "its annotators differ in the class")
        return None
    if any(not one.named and len(one.shapes.keys() - {""}) > 1 for one in entry.marks):
        reading.count(shown, SEVERAL)
    label = labels[0][0]
    masks = [mask for its, mask in given if its == label and mask is not None]
    mask = masks if len(masks) > 1 else next(iter(masks), None)
    names = source.options.columns
    group, subgroup = (as_text(entry.fields.get(names.get(one, one))) for one in ("group", "subgroup"))
    return Found(name, image, label, mask, entry.split, group, subgroup)


def _judged(file: Path, part: str, marks: Marks) -> tuple[str, Picture | None]:
    """The class and the mask that one annotator gave an image."""
    names = sorted(set(marks.named))
    if len(names) > 1:
        raise InputError(f"{file}: {part} has several classes, {' and '.join(names)}; expected one")
    labels = names or sorted(marks.shapes.keys() - {""})
    if len(labels) > 1:
        with naming(file, part):
            labels = [max(labels, key=lambda one: np.count_nonzero(union(marks.shapes[one])))]
    label = next(iter(labels), "")
    shapes = marks.shapes.get(label) or [shape for one in marks.shapes.values() for shape in one]
    return label, Picture(file, f"{part} {label}", lambda: union(shapes)) if shapes else None


class Pictures:
    """The picture files below a folder, to be found by the names that other programs wrote for them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.named: dict[str, list[Path]] = {}
        for path in walk(root):
            if is_picture(path):
                self.named.setdefault(unicodedata.normalize("NFC", path.name), []).append(path)

    def find(self, name: str, split: str = "", beside: Path | None = None) -> Path | None:
        """The file that a name, path or URL stands for; None if there is none.

        Among several files with that last part, the one that shares the most trailing folders is taken; then
        one in a folder named after the split; then one in the folder `beside`. Raises InputError if several
        are left.
        """
        parts = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/"))).parts
        found = self.named.get(parts[-1], []) if parts else []

        def shared(path: Path) -> int:
            pairs = zip(reversed(path.parts), reversed(parts), strict=False)
            return next((n for n, (one, other) in enumerate(pairs) if one != other), len(parts))

        def rank(path: Path) -> tuple[int, bool, bool]:
            folders = path.relative_to(self.root).parts[:-1]
            return shared(path), any(split_in(one) == split != "" for one in folders), path.parent == beside

        ranked = {path: rank(path) for path in found}
        most = max(ranked.values(), default=None)
        best = [path for path in found if ranked[path] == most]
        if len(best) > 1:
            raise InputError(
                f"{self.root}: {name!r} may be {best[0]} or {best[1]}; remove one, or name the smaller folder"
            )
        return best[0] if best else None
