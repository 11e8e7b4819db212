"""A table of samples: which images exist, what they show, where their masks are, which split they are in."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import polars as pl

from sal_fast.data.files import SUFFIXES, Foreground
from sal_fast.errors import InputError

if TYPE_CHECKING:
    from sal_fast.data.prepare import Prepared

SPLITS = ("train", "val", "test")
UNLABELLED = -1  # the label of an image whose class is not known yet


@dataclass(frozen=True)
class Table:
    """Samples in the order of their ids; every column has one entry a sample.

    labels number the classes, UNLABELLED where people have yet to give one. `mask` is None where there is no
    human map; `split` is "" until `sal_fast.data.splits` fills it.
    `foreground` turns a mask file's pixels, as Pillow decodes them (uint8 [H, W] or [H, W, 3], indices for a
    palette), into bool [H, W]; None: the rule of `files.mask`. `prepared`: where it is decoded already.
    """

    name: str
    classes: list[str]
    ids: list[str]
    images: list[Path]
    labels: list[int]
    masks: list[Path | None]
    split: list[str] = field(default_factory=list)
    foreground: Foreground | None = None
    prepared: Prepared | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, split: str) -> list[int]:
        """Row numbers of one split, in order."""
        return [row for row, name in enumerate(self.split) if name == split]

    def class_name(self, row: int) -> str:
        """The class of a sample; "" where it is not known."""
        return "" if self.labels[row] == UNLABELLED else self.classes[self.labels[row]]

    def with_split(self, split: list[str]) -> Table:
        return replace(self, split=split)


def build(
    name: str,
    rows: Iterable[tuple[str, Path, str, Path | None, str]],
    foreground: Foreground | None = None,
) -> Table:
    """A table of (id, image, class, mask, split), sorted by id, the classes numbered in the order of names.

    The class "" is none: UNLABELLED.

    Raises InputError for an id that stands twice or cannot be a file name below a run folder.
    """
    ordered = sorted(rows, key=lambda row: row[0])
    repeated = [sample for sample, count in Counter(row[0] for row in ordered).items() if count > 1]
    if repeated:
        raise InputError(f"{name}: id {repeated[0]!r} stands for several images; every id must be its own")
    for sample, *_ in ordered:
        if not names_a_file(sample):
            raise InputError(
                f"{name}: id {sample!r} cannot be used as a file name: expected UTF-8, "
                f"parts of at most 250 bytes, no '.', '..', '\\' or leading '/'"
            )
    classes = sorted({row[2] for row in ordered} - {""})
    number = {"": UNLABELLED} | {label: index for index, label in enumerate(classes)}
    return Table(
        name=name,
        classes=classes,
        ids=[row[0] for row in ordered],
        images=[row[1] for row in ordered],
        labels=[number[row[2]] for row in ordered],
        masks=[row[3] for row in ordered],
        split=[row[4] for row in ordered],
        foreground=foreground,
    )


def names_a_file(sample: str) -> bool:
    """Whether an id is the one spelling of a relative path, so that `<folder>/<id>.png` is its own file."""
    path = PurePosixPath(sample)
    try:
        sizes = [len(part.encode()) for part in path.parts]
    except UnicodeEncodeError:
        return False
    plain = str(path) == sample and not path.is_absolute() and ".." not in path.parts
    return plain and bool(sizes) and max(sizes) <= 250 and not {"\\", "\0"} & set(sample)


def read_folder(root: Path) -> Table:
    """`images/<class>/*` with `masks/<class>/<same stem>.png`; the id is `<class>/<stem>`.

    A mask may be of any image format (a PNG goes first), or a folder `masks/<class>/<same stem>/` that holds
    several annotators' masks. Images below `pool/` have no label yet; the id is `pool/<path, no suffix>`.
    """
    images = root / "images"
    if not root.is_dir():
        raise InputError(f"data folder not found: {root}")
    if not images.is_dir():
        raise InputError(f"{root}: expected a folder images/<class>/ in it, and masks/<class>/ beside it")
    rows = []
    for folder in sorted(path for path in images.iterdir() if path.is_dir() and path.name[0] != "."):
        masks = _masks(root / "masks" / folder.name)
        for image in sorted(folder.iterdir()):
            if image.suffix.lower() not in SUFFIXES or image.name.startswith("."):
                continue
            rows.append((f"{folder.name}/{image.stem}", image, folder.name, masks.get(image.stem), ""))
    if not rows:
        raise InputError(f"{images}: no images in its class folders ({', '.join(sorted(SUFFIXES))})")
    if (root / "pool").is_dir():
        rows += [(f"pool/{name}", path, "", None, "") for name, path in _below(root / "pool")]
    return build(root.resolve().name, rows)


def _below(root: Path) -> Iterator[tuple[str, Path]]:
    """Every image below a folder, with its path there, without the suffix."""
    for path in sorted(root.rglob("*")):
        below = path.relative_to(root)
        hidden = any(part.startswith(".") for part in below.parts)
        if path.suffix.lower() in SUFFIXES and path.is_file() and not hidden:
            yield below.with_suffix("").as_posix(), path


def _masks(folder: Path) -> dict[str, Path]:
    """Masks of a class folder by the name of their image."""
    if not folder.is_dir():
        return {}
    found = {path.name: path for path in folder.iterdir() if path.is_dir()}
    files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    for path in sorted(files, key=lambda path: path.suffix.lower() == ".png"):
        found[path.stem] = path
    return found


def read_images(root: Path) -> Table:
    """Every image below a folder, without class or mask; the id is its path there, without the suffix."""
    rows = [(name, path, "", None, "") for name, path in _below(root)]
    if not rows:
        raise InputError(f"{root}: no images in it ({', '.join(sorted(SUFFIXES))})")
    return build(root.resolve().name, rows)


def read_manifest(path: Path) -> Table:
    """A CSV or Parquet file with the columns id, image, label and, if there are any, mask and split.

    Relative paths start at the manifest's folder and stay inside it. `split` is train, val or test in every
    row, or in none. An empty label is one that people have yet to give.
    """
    try:
        frame = (
            pl.read_parquet(path, glob=False)
            if path.suffix.lower() == ".parquet"
            else pl.read_csv(path, infer_schema=False, glob=False)
        )
    except FileNotFoundError:
        raise InputError(f"manifest not found: {path}") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a table: {str(error).splitlines()[0]}") from None
    missing = [column for column in ("id", "image", "label") if column not in frame.columns]
    if missing:
        raise InputError(
            f"{path}: column {missing[0]!r} is missing; expected id, image, label and, perhaps mask, split; "
            f"found {', '.join(frame.columns)}"
        )
    root = path.parent.resolve()

    def inside(value: str, line: int) -> Path:
        if "\0" in value:
            raise InputError(f"{path}, line {line}: {value!r} cannot be a file's name")
        if Path(value).is_absolute():
            return Path(value)
        target = Path(os.path.normpath(root / value))  # not as it stands: of a link, `..` leads elsewhere
        if not target.is_relative_to(root):
            raise InputError(f"{path}, line {line}: {value!r} leads out of the manifest's folder")
        return target

    rows = []
    for line, row in enumerate(frame.iter_rows(named=True), start=2):
        values = {
            column: "" if row.get(column) is None else str(row[column]).strip() for column in frame.columns
        }
        for column in ("id", "image"):
            if not values[column]:
                raise InputError(f"{path}, line {line}: {column!r} is empty")
        split = values.get("split", "")
        if split not in (*SPLITS, ""):
            raise InputError(f"{path}, line {line}: split {split!r}; expected {', '.join(SPLITS)} or nothing")
        mask = values.get("mask", "")
        rows.append(
            (
                values["id"],
                inside(values["image"], line),
                values["label"],
                inside(mask, line) if mask else None,
                split,
            )
        )
    if not rows:
        raise InputError(f"{path}: no rows")
    return build(path.stem, rows)
