"""Write any data set as the plain folder that everybody can read."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from sal_fast._util.files import whole_folder, write_bytes
from sal_fast.data import files, meaning
from sal_fast.data.files import Encoded
from sal_fast.data.meaning import Rule
from sal_fast.data.readers.made import encoded, naming
from sal_fast.data.reading import each
from sal_fast.data.table import Table, filled, places
from sal_fast.errors import InputError


def convert(table: Table, out: Path) -> Path:
    """Copy the files of a table to `out`, which must be new or empty; return what `--data` takes.

    Images go to images/<class>/, masks to masks/<class>/, and images without a class to pool/. If there are
    splits, groups or subgroups, manifest.csv has them, with the table's ids. If the table has a rule for its
    masks, they are written as the rule reads them, so that the new folder needs none (but for `grades`, which
    no file can say). Masks of several objects of an image become one file. Raises InputError if `out` holds
    anything, or if a file cannot be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there and holds something; name a new folder")
    its_places = places(table.name, table.ids, [table.class_name(row) for row in range(len(table))])
    columns = {"split": filled(table.split), "group": table.group, "subgroup": table.subgroup}
    columns = {name: column for name, column in columns.items() if column}
    with whole_folder(out) as aside:
        work = partial(_copy, table, aside, its_places)
        written = list(each(work, range(len(table)), f"copying {table.name}"))
        if columns:
            rows = {
                "id": table.ids,
                "image": [image for image, _ in written],
                "label": [table.class_name(row) for row in range(len(table))],
                "mask": [mask for _, mask in written],
                **columns,
            }
            frame = pl.DataFrame(rows, schema_overrides={"mask": pl.String})
            write_bytes(aside / "manifest.csv", frame.write_csv().encode())
    return out / "manifest.csv" if columns else out


def _copy(table: Table, out: Path, places: list[str], row: int) -> tuple[str, str | None]:
    """Write the image and the mask of a row; return their names below `out`."""
    path, place = table.images[row], places[row]
    try:
        image = None if table.rule == Rule() else files.read(path, table.rule.white)
        name = _put(out, place, path if image is None else _image(image))
    except files.Unreadable as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise _failed(table, row, error) from None
    return name, put_mask(table, row, out, f"masks/{place.partition('/')[2]}", image)


def put_mask(table: Table, row: int, out: Path, place: str, image: Encoded | None = None) -> str | None:
    """Write the mask of a row as the table's rule reads it, so that nobody needs that rule any more.

    Args:
        out: a folder.
        place: the name below `out`, without a suffix.
        image: the row's image, if it has been read already.

    Returns the name that was written below `out`: a file, or a folder with the masks of several people; None
    if the row has no mask. Raises InputError if a file cannot be read or written.
    """
    mask, path, rule = table.masks[row], table.images[row], table.rule
    if mask is None:
        return None
    try:
        drawn = files.of_mask(mask)
        if isinstance(mask, tuple):
            image = image or files.read(path)
            read = (files.read(one, rule.white) for one in drawn)
            maps = [meaning.read(one, files.grades(one), None, image, rule) for one in read]
            with naming(path, "the masks of its objects"):  # such as masks of several sizes
                united = encoded(meaning.joined(maps, united=True), ".png")
            return _put(out, place, (united, ".png"))
        content: list[Path | tuple[bytes, str]] = [*drawn]
        if rule != Rule():
            image = image or files.read(path, rule.white)
            content = [_mask(files.read(one, rule.white), image, rule) for one in drawn]
        if not mask.is_dir():
            return _put(out, place, content[0])
        stems = [one.stem for one in drawn]
        if len({stem.casefold() for stem in stems}) < len(stems):
            stems = [f"{number:03d}" for number, _ in enumerate(drawn, start=1)]
        for stem, one in zip(stems, content, strict=True):
            _put(out, f"{place}/{stem}", one)
        return place
    except files.Unreadable as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise _failed(table, row, error) from None


def _failed(table: Table, row: int, error: OSError) -> InputError:
    return InputError(f"{table.ids[row]}: {error.strerror}: {error.filename}")


def _put(out: Path, place: str, content: Path | tuple[bytes, str]) -> str:
    """Copy a file, or write bytes that have a suffix; return the name below `out`."""
    name = place + (content.suffix if isinstance(content, Path) else content[1])
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, out / name)
    else:
        (out / name).write_bytes(content[0])
    return name


def _image(file: Encoded) -> Path | tuple[bytes, str]:
    """An image that needs no --white: the file itself, or its 8 bits."""
    if file.depth == "8 bits" or file.said is None:
        return file.path
    return encoded(files.rgb(file)[..., 0], ".png"), ".png"


def _mask(file: Encoded, image: Encoded, rule: Rule) -> tuple[bytes, str]:
    """A mask as the rule reads it: in 8 bits, or fractions of white if it is graded and was deeper."""
    pixels = files.grades(file)
    found = meaning.read(file, pixels, None, image, rule)
    if found.seen.kind != "graded" or file.depth == "8 bits":
        return encoded(found.pixels, ".png"), ".png"
    shares = np.where(np.isin(pixels, rule.ignore), 0, pixels) / files.white(file)
    return encoded(shares.astype(np.float32), ".tif"), ".tif"
