"""A plain folder: pictures to look at, a table to fill, masks drawn with any image editor."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np

from sal_fast._util.files import read_json
from sal_fast.annotate.answers import Answer, Asked, Problems, in_order, new_folder, pictures
from sal_fast.data import files
from sal_fast.data.table import names_a_file
from sal_fast.errors import InputError

TABLE, QUERY = "answers.csv", "query.json"
COLUMNS = ("id", "label", "annotator", "seconds", "skipped")
YES, NO = ("1", "yes", "true", "x"), ("", "0", "no", "false")

README = """Query {query} of the run {run}. Images: {count}.

1. Look at images/<id>.jpg or .png.{draw}
{step}. Fill {table}, a line an image (UTF-8):
     label      the class, spelt as in classes.txt
     annotator  who answers; may stay empty
     seconds    how long it took; may stay empty
     skipped    yes, where it cannot be told; the label then stays empty
   A line without label and without skipped counts as not answered yet.
   Several people for one image: a line each, with different annotators{several}.
   In a spreadsheet import the columns as text, or it rewrites ids such as 001.
Keep this folder together: {file} says which query it belongs to. Then:
       sal-fast query import RUN FOLDER
"""
DRAW = """
2. Draw masks/<id>.png, of the picture's size: grey, without transparency. 0 is background, one other value is
   what shows the class; more values are degrees of it, 0 to 255. No file: no map. Paint on a black layer and
   save that alone: paint on the picture, or on a transparent layer, is refused."""
SEVERAL = """, and their masks in
   masks/<annotator>/<id>.png"""


def export(asked: Asked, out: Path) -> list[Path]:
    """A new folder `out`: images/<id>.jpg or .png, masks/, answers.csv, classes.txt, README.txt.

    Returns the table. Raises InputError where `out` holds anything, or names the images that cannot be
    read.
    """
    with new_folder(out) as folder:
        for name, data, suffix in pictures(asked):
            path = folder / "images" / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            if asked.maps:
                (folder / "masks" / f"{name}.png").parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        writer.writerows((name, "", "", "", "") for name in asked.ids)
        (folder / TABLE).write_bytes(text.getvalue().encode("utf-8-sig"))  # so that spreadsheets see UTF-8
        (folder / "classes.txt").write_text("\n".join(asked.classes) + "\n", encoding="utf-8")
        query = {"run": asked.run, "query": asked.query}
        (folder / QUERY).write_text(json.dumps(query, ensure_ascii=False) + "\n", encoding="utf-8")
        readme = README.format(
            query=asked.query,
            run=asked.run,
            count=len(asked.ids),
            draw=DRAW if asked.maps else "",
            several=SEVERAL if asked.maps else "",
            step=3 if asked.maps else 2,
            table=TABLE,
            file=QUERY,
        )
        (folder / "README.txt").write_text(readme, encoding="utf-8")
    return [out / TABLE]


def read(path: Path, asked: Asked) -> list[Answer]:
    """The answers in an exported folder, or in the table in it, in the order of the query.

    A line without label and skipped is left out. Masks: masks/<annotator>/<id>.png, or masks/<id>.png where
    one person answered; without `asked.maps` none is looked at. Raises InputError with everything that is
    wrong, each with its line.
    """
    table = path / TABLE if path.is_dir() else path
    root = table.parent
    problems = Problems(table.name)
    rows = _rows(table, problems)
    if not (root / QUERY).is_file():
        raise InputError(f"{root / QUERY} is missing; keep the exported folder together, it says which query")
    query = read_json(root / QUERY)
    asked.refuse_others(query.get("run"), query.get("query"), str(root))
    answered = Counter(row["id"] for _, row in rows if row["label"].strip())
    answers: list[tuple[str, Answer]] = []
    for place, row in rows:
        name = row["id"]
        if name not in asked.row_of:
            problems.add(place, asked.id_problem(name))
            continue
        place += f" (id {name!r})"
        try:
            answer = _answer(row, root / "masks", asked, alone=answered[name] == 1)
        except ValueError as error:
            problems.add(place, str(error))
            continue
        if answer is not None:
            answers.append((place, answer))
    if asked.maps:
        _spare_masks(root / "masks", asked, {row["annotator"] for _, row in rows}, problems)
    return in_order(asked, answers, problems)


def _rows(table: Path, problems: Problems) -> list[tuple[str, dict[str, str]]]:
    """The lines of the table, each with its place; what cannot be a line goes to `problems`."""
    try:
        data = table.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"file not found: {table}; import Label Studio's JSON export, or a folder from --to folder"
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{table.name}, line {line}: not UTF-8; save the table as CSV UTF-8") from None
    header = text.partition("\n")[0]
    delimiter = next((mark for mark in ";\t" if mark in header), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[str, dict[str, str]]] = []
    line = 1
    try:
        columns = [column.strip().lower() for column in next(reader, [])]
        if "annotation_id" in columns:
            raise InputError(f"{table.name}: Label Studio's export in the format CSV; choose its format JSON")
        missing = [column for column in COLUMNS if column not in columns]
        if missing or len(set(columns)) < len(columns):
            raise InputError(
                f"{table.name}, line 1: expected a CSV file with the columns {', '.join(COLUMNS)}; "
                f"{'missing: ' + ', '.join(missing) if missing else 'a column stands twice'}"
            )
        line = reader.line_num + 1
        for fields in reader:
            place, line = f"line {line}", reader.line_num + 1
            if not any(field.strip() for field in fields):
                continue
            if len(fields) != len(columns):
                problems.add(place, f"{len(fields)} fields, expected {len(columns)}")
                continue
            row = dict(zip(columns, fields, strict=True))
            kept = ("id", "label")  # as they are: either may begin or end with a space
            rows.append((place, {key: row[key] if key in kept else row[key].strip() for key in COLUMNS}))
    except csv.Error as error:
        raise InputError(f"{table.name}, line {line}: not CSV ({error})") from None
    return rows


def _answer(row: dict[str, str], masks: Path, asked: Asked, alone: bool) -> Answer | None:
    """One line; None where it is not answered yet. ValueError says what is wrong with it."""
    name, annotator = row["id"], row["annotator"]
    label = row["label"] if row["label"] in asked.classes else row["label"].strip()
    skipped = row["skipped"].lower()
    if skipped not in YES + NO:
        raise ValueError(f"skipped is {row['skipped']!r}, expected yes or nothing")
    seconds = _seconds(row["seconds"])
    if skipped in YES:
        if label:
            raise ValueError(f"skipped, and yet of the class {label!r}; empty one of the two")
        return Answer(name, None, None, annotator, seconds, skipped=True)
    if not label:
        return None
    if label not in asked.classes:
        raise ValueError(asked.class_problem(label))
    mask = _mask(masks, name, annotator, asked, alone) if asked.maps else None
    return Answer(name, label, mask, annotator, seconds, skipped=False)


def _seconds(text: str) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text.replace(",", "."))
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"seconds is {text!r}, expected a number, 0 or more, or nothing")
    return seconds


def _mask(masks: Path, name: str, annotator: str, asked: Asked, alone: bool) -> np.ndarray | None:
    path = masks / f"{name}.png"
    if annotator:
        if "/" in annotator or not names_a_file(annotator):
            raise ValueError(f"annotator {annotator!r} cannot be a folder's name; use letters and digits")
        if any(other.startswith(annotator + "/") for other in asked.ids):
            raise ValueError(f"annotator {annotator!r} is also how an id begins; choose another name")
        own = masks / annotator / f"{name}.png"
        if own.exists():
            path = own
        elif not alone and path.exists():
            raise ValueError(f"whose is masks/{name}.png? Several people answered: use masks/<annotator>/")
    elif not alone and path.exists():
        raise ValueError("several people answered: name the annotators, masks go to masks/<annotator>/")
    if not path.exists():
        return None
    try:
        image, file = files.read(asked.images[asked.row_of[name]]), files.read(path)
        if file.size != image.size:
            raise ValueError(
                f"{path.relative_to(masks.parent)} has {file.size[0]}x{file.size[1]} pixels, "
                f"its image {image.size[0]}x{image.size[1]}; draw it at the picture's size"
            )
        pixels = files.grades(file)
        if files.transparent(file):
            raise ValueError(
                f"{path.relative_to(masks.parent)} is transparent in parts, expected white on black; flatten "
                f"it onto black"
            )
        if not _shades(pixels):
            raise ValueError(
                f"{path.relative_to(masks.parent)} is in colour, expected white on black; paint on a black "
                f"layer, not on the picture, and save that alone"
            )
        return files.mask(file, pixels, None)
    except files.Unreadable as error:
        raise ValueError(str(error)) from None


def _shades(pixels: np.ndarray) -> bool:
    """Whether a mask is grey, or black and one colour: of others it cannot be told what was marked."""
    if pixels.ndim == 2 or bool((pixels == pixels[..., :1]).all()):
        return True
    marked = pixels[pixels.any(axis=-1)]
    return bool((marked == marked[0]).all()) and len(marked) < pixels[..., 0].size


def _spare_masks(masks: Path, asked: Asked, annotators: set[str], problems: Problems) -> None:
    """Pictures in masks/ that are nobody's: most likely a slip in their name."""
    for path in sorted(masks.rglob("*")):
        below = path.relative_to(masks)
        if path.suffix.lower() not in files.SUFFIXES or any(part.startswith(".") for part in below.parts):
            continue
        name = below.as_posix().removesuffix(".png")
        first, _, rest = name.partition("/")
        if name not in asked.row_of and not (first in annotators and rest in asked.row_of):
            problems.add(f"masks/{below.as_posix()}", "belongs to no line; expected masks/<id>.png")
