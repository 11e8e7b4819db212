"""Fixation files with a header and one fixation in each row, as most eye trackers export them.

Fields are separated by commas, semicolons or tabs. Columns are found by the names that are usual for them
(`NAMES`), or by those that the user gives. Lines before the header that are empty or start with # are
skipped. Fixations of an image without an observer's name are those of one observer.
"""

from __future__ import annotations

import io
import logging
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl

from sal_fast.data import files
from sal_fast.data.fixations.points import POINTS, check_image
from sal_fast.data.fixations.setting import FIELDS, IN_MS, Setting, Unit, placed, told_coordinates, told_unit
from sal_fast.errors import InputError

# usual names of columns, in small letters and digits alone
NAMES = {
    "image": "image imageid imagename imagefile img stimulus stimulusname stimuli filename file picture "
    "photo presentedstimulusname id",
    "x": "x fixx fixationx xpos posx gazex currentfixx fixationpointx fixpointx xcoord meanx averagex",
    "y": "y fixy fixationy ypos posy gazey currentfixy fixationpointy fixpointy ycoord meany averagey",
    "duration": "duration dur fixdur fixduration fixationduration currentfixduration gazeeventduration",
    "observer": "observer observerid subject subjectid subj participant participantid participantname user "
    "userid person recordingsessionlabel",
    "width": "width w imagewidth imgwidth stimuluswidth",
    "height": "height h imageheight imgheight stimulusheight",
}
UNITS: dict[str, Unit] = {
    "ms": "ms", "msec": "ms", "milliseconds": "ms", "s": "s", "sec": "s", "seconds": "s", "us": "us",
    "µs": "us",
}  # fmt: skip
MISSING = ("", ".", "-", "na", "n/a", "nan", "null", "none")  # what trackers write where there is nothing

log = logging.getLogger(__name__)


def has_header(data: bytes) -> bool:
    """True if the first line of a file's bytes names columns: for x and y, or by texts without a number."""
    header = _header(data)[1]
    names = {_plain(name) for name in header}
    if all(names & set(NAMES[field].split()) for field in "xy"):
        return True
    lines = [name.lower() for name in header[:3]] == ["id", "w", "h"]
    return len(header) > 2 and not lines and not any(re.fullmatch(r"-?\d*\.?\d+", name) for name in header)


def read(path: Path, data: bytes, setting: Setting) -> pl.DataFrame:
    """Read the points of a file's bytes, in pixels of the images.

    Raises InputError that names the file, the line and what was expected there, or the option that says what
    the file does not tell.
    """
    table, first = _table(path, data)
    columns = _columns(path, table.columns, setting)
    table = table.select(**{field: pl.col(name).str.strip_chars() for field, name in columns.items()})
    table = table.with_columns(line=pl.int_range(first, first + len(table)))
    for field in {"x", "y", "duration", "width", "height"} & set(columns):
        table = table.with_columns(_numbers(path, table, field))
    ms = _durations(path, table, columns, setting)
    table = _with_images(path, table.with_columns(ms=ms), setting)
    without = table["x"].is_null() | table["y"].is_null()
    if without.any():
        log.warning("%s: %d rows have no x or y; they are left out", path, without.sum())
    observer = pl.col("observer") if "observer" in columns else pl.lit("#")
    frame = table.filter(~without).with_columns(observer=observer.fill_null("#")).select(list(POINTS))
    coordinates = told_coordinates(path, frame, setting)
    whose = "the screen" if setting.on_screen else "the image"
    log.info(
        "%s: one fixation a row (%s); x and y are %s of %s", path,
        ", ".join(f"{field} from {name!r}" for field, name in columns.items()),
        "shares" if coordinates == "shares" else "pixels", whose,
    )  # fmt: skip
    return placed(path, frame.cast(POINTS), coordinates, setting)  # type: ignore[arg-type]


def _header(data: bytes) -> tuple[int, list[str], str]:
    """How many lines come before the header, the names in it, and what separates them."""
    for before, line in enumerate(io.BytesIO(data)):
        text = line.decode("utf-8-sig", errors="replace").strip()
        if text and not text.startswith("#"):
            separator = max(",;\t", key=text.count)
            return before, [name.strip().strip('"') for name in text.split(separator)], separator
    return 0, [], ","


def _table(path: Path, data: bytes) -> tuple[pl.DataFrame, int]:
    """The table as texts, and the line of its first row."""
    before, _, separator = _header(data)
    rest = b"".join(data.splitlines(keepends=True)[before:])
    try:
        table = pl.read_csv(io.BytesIO(rest), infer_schema=False, separator=separator)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: cannot be read as a table: {str(error).splitlines()[0]}") from None
    return table.rename(str.strip), before + 2


def _plain(name: str) -> str:
    """A column's name in small letters and digits alone, without what is in brackets and without a unit."""
    name = re.sub(r"[\[(].*?[\])]", "", name.lower())
    return re.sub(r"[^a-z0-9]", "", re.sub(r"[ _](ms|msec|s|sec|seconds|us|px|pixels?)$", "", name.strip()))


def _unit(name: str) -> Unit | None:
    """The unit that a column's name ends with, as in `duration_ms` and `Duration [s]`."""
    found = re.search(r"[\[( _]([a-zµ]+)[\])]?$", name.strip().lower())
    return UNITS.get(found[1]) if found else None


def _columns(path: Path, names: list[str], setting: Setting) -> dict[str, str]:
    """The names of the columns by field."""
    there = f"found {', '.join(names)}"
    columns = {}
    for field in FIELDS:
        if field in setting.columns:
            name = setting.columns[field]
            if name and name not in names:
                raise InputError(f"{path}: --columns {field}={name}: no such column; {there}")
            columns[field] = name
            continue
        usual = [name for name in names if _plain(name) in NAMES[field].split()]
        if field == "image" and len(usual) > 1:  # an id beside it numbers the rows
            usual = [name for name in usual if _plain(name) != "id"]
        if len(usual) > 1:
            raise InputError(
                f"{path}: columns {usual[0]!r} and {usual[1]!r} may both be the {field}; say which with "
                f"--columns {field}={usual[0]}"
            )
        columns[field] = usual[0] if usual else ""
    for field in ("image", "x", "y"):
        if not columns[field]:
            raise InputError(f"{path}: no column for {field}; name it with --columns {field}=NAME; {there}")
    if "norm_pos" in columns["y"]:
        raise InputError(
            f"{path}: {columns['y']} counts from the bottom of the picture; add a column of 1 - y, and name "
            f"it with --columns y=NAME"
        )
    return {field: name for field, name in columns.items() if name}


def _numbers(path: Path, table: pl.DataFrame, field: str) -> pl.Series:
    """A column as numbers, null where there is nothing."""
    texts = table[field].set(table[field].str.to_lowercase().is_in(MISSING), None)
    numbers = texts.cast(pl.Float64, strict=False)
    wrong = texts.is_not_null() & ~numbers.is_finite().fill_null(False)
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        comma = "; write decimal points" if re.fullmatch(r"-?\d+,\d+", texts[row]) else ""
        raise InputError(f"{path}, line {table['line'][row]}: {field} {texts[row]!r} is not a number{comma}")
    return numbers


def _durations(path: Path, table: pl.DataFrame, columns: dict[str, str], setting: Setting) -> pl.Series:
    """The durations in ms; null in all rows if the file has none."""
    none = pl.Series("ms", [None] * len(table), dtype=pl.Float64)
    if "duration" not in columns or table["duration"].is_null().all():
        log.info("%s: no durations; every fixation counts 1", path)
        return none
    durations = table["duration"]
    for wrong, what in (
        (durations.is_null(), "no duration, and others have one"),
        (durations < 0, "a negative duration"),
    ):
        if wrong.any():
            raise InputError(
                f"{path}, line {table['line'][int(wrong.fill_null(False).arg_max() or 0)]}: {what}; "
                f"correct it, or leave durations out with --columns duration="
            )
    unit = told_unit(path, durations, _unit(columns["duration"]), setting)
    log.info("%s: durations are in %s (median %g)", path, unit, durations.median())
    return (durations * IN_MS[unit]).alias("ms")


def _with_images(path: Path, table: pl.DataFrame, setting: Setting) -> pl.DataFrame:
    """The rows with the images' id, width and height. Rows of images that are not there are left out."""
    if table["image"].is_null().any():
        row = int(table["image"].is_null().arg_max() or 0)
        raise InputError(f"{path}, line {table['line'][row]}: the image has no name")
    names = table["image"].unique(maintain_order=True).to_list()
    found = {name: _stem(name) for name in names}
    paths: dict[str, Path] = {}
    if setting.images is not None:
        found, paths = _on_disk(path, names, setting.images)
    table = table.filter(pl.col("image").is_in(list(found)))
    table = table.with_columns(id=pl.col("image").replace_strict(found, return_dtype=pl.String))
    if not {"width", "height"} <= set(table.columns):
        if setting.images is None:
            raise InputError(
                f"{path}: no columns for width and height; name them with --columns "
                f"width=NAME,height=NAME, or the folder of the images with --images"
            )
        sizes = {name: files.read(paths[name]).size for name in table["id"].unique().to_list()}
        for axis, field in enumerate(("width", "height")):
            by_id = {name: size[axis] for name, size in sizes.items()}
            table = table.with_columns(
                pl.col("id").replace_strict(by_id, return_dtype=pl.Float64).alias(field)
            )
    _check_sizes(path, table)
    return table


def _check_sizes(path: Path, table: pl.DataFrame) -> None:
    """Refuse sizes that are none, and an image of two sizes."""
    sizes: dict[str, tuple[float, float]] = {}
    for name, width, height, line in table.select("id", "width", "height", "line").unique(
        ["id", "width", "height"], keep="first", maintain_order=True
    ).iter_rows():  # fmt: skip
        try:
            for value in (width, height):
                if value is None or value < 1 or value != np.rint(value):
                    raise ValueError(f"a width or height of {value}; expected a whole number of pixels")
            check_image(name, int(width), int(height))
            before = sizes.setdefault(name, (width, height))
            if before != (width, height):
                raise ValueError(
                    f"{name!r} is {width:g}x{height:g} here and {before[0]:g}x{before[1]:g} before"
                )
        except ValueError as error:
            raise InputError(f"{path}, line {line}: {error}") from None


def _stem(name: str) -> str:
    """A name without the suffix of a picture."""
    name = name.replace("\\", "/").removeprefix("./")
    stem, dot, suffix = name.rpartition(".")
    return stem if f".{suffix.lower()}" in files.SUFFIXES and dot else name


def _on_disk(path: Path, names: list[str], folder: Path) -> tuple[dict[str, str], dict[str, Path]]:
    """The ids of those names that have an image in the folder, and the images by id."""
    paths = {
        file.relative_to(folder).with_suffix("").as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in files.SUFFIXES and not file.name.startswith(".")
    }
    by_name = defaultdict(list)
    for one in paths:
        by_name[one.rpartition("/")[2]].append(one)
    found = {}
    for name in names:
        stem = _stem(name)
        same = [stem] if stem in paths else by_name[stem.rpartition("/")[2]]
        if len(same) > 1:
            raise InputError(
                f"{path}: {name!r} may be {same[0]!r} or {same[1]!r}; write the folder before it"
            )
        if same:
            found[name] = same[0]
    absent = [name for name in names if name not in found]
    if not found:
        raise InputError(f"{path}: {folder} has none of its images, the first of which is {names[0]!r}")
    if absent:
        log.warning(
            "%s: %d of %d images are not in %s, the first is %r; they are left out",
            path, len(absent), len(names), folder, absent[0],
        )  # fmt: skip
    return found, paths
