"""Write any data set as the plain folder that everybody can read."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import polars as pl

from sal_fast._util.files import whole_folder, write_bytes
from sal_fast.data import files, meaning
from sal_fast.data.readers.made import encoded
from sal_fast.data.reading import each
from sal_fast.data.table import Table
from sal_fast.errors import InputError


def convert(table: Table, out: Path) -> Path:
    """Copy the files of a table to `out`, which must be new or empty; return what `--data` takes.

    Images go to images/<class>/, masks to masks/<class>/, and images without a class to pool/. If there are
    splits, manifest.csv has them, with the table's ids. If the data set has a rule of its own for its masks,
    they are written by that rule, as 0 and 255. Raises InputError if `out` holds anything, or if a file
    cannot be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there and holds something; name a new folder")
    places = _places(table)
    with whole_folder(out) as aside:
        work = partial(_copy, table, aside, places)
        for _ in each(work, range(len(table)), f"copying {table.name}"):
            pass
        if any(table.split):
            masks = [_mask_name(table, row, place) for row, place in enumerate(places)]
            rows = {
                "id": table.ids,
                "image": [f"{place}{path.suffix}" for place, path in zip(places, table.images, strict=True)],
                "label": [table.class_name(row) for row in range(len(table))],
                "mask": masks,
                "split": table.split,
            }
            frame = pl.DataFrame(rows, schema_overrides={"mask": pl.String})
            write_bytes(aside / "manifest.csv", frame.write_csv().encode())
    return out / "manifest.csv" if any(table.split) else out


def _places(table: Table) -> list[str]:
    """Where each image goes, without its ending. Two that would share a place get another name."""
    taken: set[str] = set()
    places = []
    for row, name in enumerate(table.ids):
        label = table.class_name(row)
        if label and (label in (".", "..") or label.startswith(".") or set("/\\\0") & set(label)):
            raise InputError(f"{table.name}: class {label!r} cannot be the name of a folder; rename it")
        folder = f"images/{label}" if label else "pool"
        place = f"{folder}/{name.removeprefix(f'{label}/').removeprefix('pool/').replace('/', '_')}"
        while place.casefold() in taken:
            place += "_"
        taken.add(place.casefold())
        places.append(place)
    return places


def _mask_name(table: Table, row: int, place: str) -> str | None:
    """The name of a sample's mask below the new folder: a file, or a folder of several annotators' masks."""
    path = table.masks[row]
    if path is None:
        return None
    own = table.rule.own is not None
    return f"masks/{place.partition('/')[2]}" + (".png" if own else "" if path.is_dir() else path.suffix)


def _copy(table: Table, out: Path, places: list[str], row: int) -> None:
    image, mask, place = table.images[row], table.masks[row], places[row]
    name = _mask_name(table, row, place)
    try:
        target = out / f"{place}{image.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, target)
        if mask is None or name is None:
            return
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if table.rule.own is not None:
            file = files.read(mask)
            found = meaning.read(file, files.grades(file), None, files.read(image), table.rule)
            target.write_bytes(encoded(found.pixels, ".png"))
        elif mask.is_dir():
            target.mkdir()
            for one in files.of_mask(mask):
                shutil.copyfile(one, target / one.name)
        else:
            shutil.copyfile(mask, target)
    except files.Unreadable as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(f"{table.ids[row]}: {error.strerror}: {error.filename}") from None
