"""The formats that a table is read from: a folder of class folders, any folder of images, a manifest."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from sal_fast.data.files import SUFFIXES
from sal_fast.data.table import Sample, Table, make_table
from sal_fast.errors import InputError

ENDINGS = ", ".join(sorted(SUFFIXES))


def read_folder(root: Path) -> Table:
    """Read `images/<class>/*` with `masks/<class>/<same stem>.png`; an image's id is `<class>/<stem>`.

    A mask may have any image format (a PNG is preferred), or be a folder `masks/<class>/<same stem>/` that
    holds several annotators' masks. Images below `pool/` have no label yet; their id is `pool/<path without
    suffix>`.
    """
    images = root / "images"
    if not images.is_dir():
        raise InputError(f"{root}: expected a folder images/<class>/ in it, and masks/<class>/ beside it")
    samples = []
    for folder in sorted(path for path in images.iterdir() if path.is_dir() and path.name[0] != "."):
        masks = _masks(root / "masks" / folder.name)
        for image in sorted(folder.iterdir()):
            if image.suffix.lower() in SUFFIXES and not image.name.startswith("."):
                name = f"{folder.name}/{image.stem}"
                samples.append(Sample(name, image, folder.name, masks.get(image.stem)))
    if not samples:
        raise InputError(f"{images}: no images in its class folders ({ENDINGS})")
    pool = root / "pool"
    samples += [Sample(f"pool/{name}", path) for name, path in _below(pool)]
    return make_table(root.resolve().name, samples)


def read_images(root: Path) -> Table:
    """Read every image below a folder, without class or mask; its path, without the suffix, is its id."""
    samples = [Sample(name, path) for name, path in _below(root)]
    if not samples:
        raise InputError(f"{root}: no images in it ({ENDINGS})")
    return make_table(root.resolve().name, samples)


def _below(root: Path) -> Iterator[tuple[str, Path]]:
    """Every image below a folder, with its path there, without the suffix; none if there is no folder."""
    for path in sorted(root.rglob("*")):
        below = path.relative_to(root)
        hidden = any(part.startswith(".") for part in below.parts)
        if path.suffix.lower() in SUFFIXES and path.is_file() and not hidden:
            yield below.with_suffix("").as_posix(), path


def _masks(folder: Path) -> dict[str, Path]:
    """The masks of a class folder by the stem of their image."""
    if not folder.is_dir():
        return {}
    folders = {path.name: path for path in folder.iterdir() if path.is_dir()}
    files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    files.sort(key=lambda path: path.suffix.lower() == ".png")
    return folders | {path.stem: path for path in files}


def read_manifest(path: Path) -> Table:
    """Read a CSV or Parquet file with the columns id, image, label and, if there are any, mask and split.

    Relative paths start at the manifest's folder and stay inside it. `split` is train, val or test in every
    row, or in none. An empty label is one that people have yet to give.
    """
    root = path.parent.resolve()

    def inside(value: str, line: int) -> Path:
        if "\0" in value:
            raise InputError(f"{path}, line {line}: {value!r} cannot be a file's name")
        if Path(value).is_absolute():
            return Path(value)
        target = Path(os.path.normpath(root / value))  # we do not follow links: their `..` leads elsewhere
        if not target.is_relative_to(root):
            raise InputError(f"{path}, line {line}: {value!r} leads out of the manifest's folder")
        return target

    samples = []
    columns = ("id", "image", "label"), ("mask", "split")
    for line, (name, image, label, mask, split) in read_rows(path, *columns):
        if not (name and image):
            raise InputError(f"{path}, line {line}: {'image' if name else 'id'!r} is empty")
        samples.append(Sample(name, inside(image, line), label, inside(mask, line) if mask else None, split))
    return make_table(path.stem, samples)


def read_rows(
    path: Path, columns: Sequence[str], others: Sequence[str] = ()
) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and values of a CSV, tab-separated or Parquet file: those of `columns`, then of `others`.

    Values are stripped text; "" stands for none, and for those of `others` that the file does not have.
    Raises InputError if the file is missing, cannot be read, lacks one of `columns`, or has no rows.
    """
    try:
        if path.suffix.lower() == ".parquet":
            frame = pl.read_parquet(path, glob=False)
        else:
            with open(path, "rb") as file:
                separator = "\t" if b"\t" in file.readline() else ","
            frame = pl.read_csv(path, infer_schema=False, glob=False, separator=separator)
    except FileNotFoundError:
        raise InputError(f"manifest not found: {path}") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a table: {str(error).splitlines()[0]}") from None
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        also = f" and, perhaps, {', '.join(others)}" if others else ""
        raise InputError(
            f"{path}: column {missing[0]!r} is missing; expected {', '.join(columns)}{also}; "
            f"found {', '.join(frame.columns)}"
        )
    if not len(frame):
        raise InputError(f"{path}: no rows")
    for line, row in enumerate(frame.iter_rows(named=True), start=2):
        values = (row.get(name) for name in (*columns, *others))
        yield line, ["" if value is None else str(value).strip() for value in values]
