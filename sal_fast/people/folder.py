"""A query as a plain folder: pictures, a table to fill, and masks that any image editor draws."""

import csv
import io
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np

from sal_fast._util.files import read_json
from sal_fast.data import files, meaning
from sal_fast.data.meaning import Rule
from sal_fast.data.table import names_a_file
from sal_fast.errors import InputError
from sal_fast.people.question import (
    Answer,
    Problems,
    Question,
    fill_template,
    in_order,
    new_folder,
    pictures,
)

TABLE, QUERY, SPARED = "answers.csv", "query.json", "class-only.txt"
COLUMNS = ("id", "label", "annotator", "seconds", "skipped")
YES, NO = ("1", "yes", "true", "x"), ("", "0", "no", "false")


def export(question: Question, out: Path) -> list[Path]:
    """Make the folder `out` with images/, masks/, answers.csv, classes.txt and README.txt; return the table.

    If some images have a map already, class-only.txt lists them, and masks/ has no place for theirs.
    Raises InputError if `out` holds anything, or if images cannot be read; it then names all of them.
    """
    with new_folder(out) as folder:
        for name, data, suffix in pictures(question):
            path = folder / "images" / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            if question.wants_map(name):
                (folder / "masks" / f"{name}.png").parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        writer.writerows((name, "", "", "", "") for name in question.ids)
        (folder / TABLE).write_bytes(text.getvalue().encode("utf-8-sig"))  # so that spreadsheets see UTF-8
        (folder / "classes.txt").write_text("\n".join(question.classes) + "\n", encoding="utf-8")
        if question.spared:
            (folder / SPARED).write_text("\n".join(question.spared) + "\n", encoding="utf-8")
        query = {"run": question.run, "query": question.query_index}
        (folder / QUERY).write_text(json.dumps(query, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "README.txt").write_text(fill_template("folder.txt", question=question), encoding="utf-8")
    return [out / TABLE]


def read_answers(path: Path, question: Question) -> list[Answer]:
    """Read the answers in an exported folder, or in its table, in the order of the query.

    A line with neither label nor `skipped` is left out. An annotator's mask is masks/<annotator>/<id>.png,
    or masks/<id>.png if only one person answered. Masks are ignored if the question asks for none. Raises
    InputError with everything that is wrong and the line where it is.
    """
    table = path / TABLE if path.is_dir() else path
    root = table.parent
    problems = Problems(table.name)
    rows = _rows(table, problems)
    if not (root / QUERY).is_file():
        raise InputError(f"{root / QUERY} is missing; keep the exported folder together, it says which query")
    query = read_json(root / QUERY)
    question.refuse_others(query.get("run"), query.get("query"), str(root))
    answered = Counter(row["id"] for _, row in rows if row["label"].strip())
    answers: list[tuple[str, Answer]] = []
    for place, row in rows:
        name = row["id"]
        if name not in question.row_of:
            problems.add(place, question.id_problem(name))
            continue
        place += f" (id {name!r})"
        try:
            answer = _answer(row, root / "masks", question, alone=answered[name] == 1)
        except (ValueError, files.Unreadable) as error:
            problems.add(place, str(error))
            continue
        if answer is not None:
            answers.append((place, answer))
    if question.maps:
        _spare_masks(root / "masks", question, {row["annotator"] for _, row in rows}, problems)
    return in_order(question, answers, problems)


def _rows(table: Path, problems: Problems) -> list[tuple[str, dict[str, str]]]:
    """Read the lines of the table, each with its place. A line of another length goes to `problems`."""
    text = _text(table)
    delimiter = next((mark for mark in ";\t" if mark in text.partition("\n")[0]), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[str, dict[str, str]]] = []
    line = 1
    try:
        columns = [column.strip().lower() for column in next(reader, [])]
        _check_columns(columns, table)
        line = reader.line_num + 1
        for fields in reader:
            place, line = f"line {line}", reader.line_num + 1
            if not any(field.strip() for field in fields):
                continue
            if len(fields) != len(columns):
                problems.add(place, f"{len(fields)} fields, expected {len(columns)}")
                continue
            row = dict(zip(columns, fields, strict=True))
            kept = ("id", "label")  # these may begin or end with a space
            rows.append((place, {key: row[key] if key in kept else row[key].strip() for key in COLUMNS}))
    except csv.Error as error:
        raise InputError(f"{table.name}, line {line}: not CSV ({error})") from None
    return rows


def _text(table: Path) -> str:
    try:
        data = table.read_bytes()
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(
            f"file not found: {table}; import Label Studio's JSON export, or a folder from --to folder"
        ) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{table.name}, line {line}: not UTF-8; save the table as CSV UTF-8") from None


def _check_columns(columns: list[str], table: Path) -> None:
    if "annotation_id" in columns:
        raise InputError(f"{table.name}: Label Studio's export in the format CSV; choose its format JSON")
    missing = [column for column in COLUMNS if column not in columns]
    if missing or len(set(columns)) < len(columns):
        raise InputError(
            f"{table.name}, line 1: expected a CSV file with the columns {', '.join(COLUMNS)}; "
            f"{'missing: ' + ', '.join(missing) if missing else 'two columns have the same name'}"
        )


def _answer(row: dict[str, str], masks: Path, question: Question, alone: bool) -> Answer | None:
    """Read one line; None if it is not answered yet. ValueError and Unreadable say what is wrong with it."""
    name, annotator = row["id"], row["annotator"]
    label = row["label"] if row["label"] in question.classes else row["label"].strip()
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
    if label not in question.classes:
        raise ValueError(question.class_problem(label))
    path = _mask_file(masks, name, annotator, question, alone) if question.maps else None
    mask = None if path is None else _mask(path, masks.parent, question.images[question.row_of[name]])
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


def _mask_file(masks: Path, name: str, annotator: str, question: Question, alone: bool) -> Path | None:
    """Find the annotator's mask of an image, or None. Raises ValueError if it is unclear whose mask it is."""
    shared = masks / f"{name}.png"
    if annotator:
        if "/" in annotator or not names_a_file(annotator):
            raise ValueError(f"annotator {annotator!r} cannot be a folder's name; use letters and digits")
        if any(other.startswith(annotator + "/") for other in question.ids):
            raise ValueError(f"annotator {annotator!r} is also how an id begins; choose another name")
        own = masks / annotator / f"{name}.png"
        if own.exists():
            return own
    if not shared.exists():
        return None
    if not alone and annotator:
        raise ValueError(f"whose is masks/{name}.png? Several people answered: use masks/<annotator>/")
    if not alone:
        raise ValueError("several people answered: name the annotators, masks go to masks/<annotator>/")
    return shared


def _mask(path: Path, root: Path, picture: Path) -> np.ndarray:
    """Read a mask. ValueError and Unreadable say why it cannot be used."""
    image, file = files.read(picture), files.read(path)
    shown = path.relative_to(root)
    if file.size != image.size:
        raise ValueError(
            f"{shown} has {file.size[0]}x{file.size[1]} pixels, its image {image.size[0]}x{image.size[1]}; "
            f"draw it at the picture's size"
        )
    drawn = meaning.read(file, files.grades(file), None, image)
    for problem in meaning.judge([(str(shown), drawn.seen)], Rule()).problems:
        raise ValueError(problem)
    return drawn.pixels


def _spare_masks(masks: Path, question: Question, annotators: set[str], problems: Problems) -> None:
    """Report pictures in masks/ that belong to no line: their names are most likely slips."""
    for path in sorted(masks.rglob("*")):
        below = path.relative_to(masks)
        if path.suffix.lower() not in files.SUFFIXES or any(part.startswith(".") for part in below.parts):
            continue
        name = below.as_posix().removesuffix(".png")
        first, _, rest = name.partition("/")
        if name not in question.row_of and not (first in annotators and rest in question.row_of):
            problems.add(f"masks/{below.as_posix()}", "belongs to no line; expected masks/<id>.png")
