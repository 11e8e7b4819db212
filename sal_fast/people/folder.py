"""A query as a plain folder: pictures, a table to fill, and masks that any image editor draws."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

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
    kind_of,
    new_folder,
    one_person,
    pictures,
)
from sal_fast.people.suggested import Suggested, first_map

TABLE, QUERY, SUGGESTED, SPARED = "answers.csv", "query.json", "suggested", "class-only.txt"
COLUMNS = ("id", "label", "annotator", "seconds", "skipped")
YES, NO = ("1", "yes", "true", "x"), ("", "0", "no", "false")


def export(question: Question, out: Path, suggested: Suggested | None = None) -> list[Path]:
    """Make the folder `out` with images/, masks/, answers.csv, classes.txt and README.txt; return the table.

    Maps that a model suggests are in suggested/; people may copy them to masks/, and change them. If some
    images have a map already, class-only.txt lists them, and masks/ has no place for theirs. Raises
    InputError if `out` holds anything, or if images cannot be read; it then names all of them.
    """
    begun = False
    with new_folder(out) as folder:
        for name, data, suffix in pictures(question):
            shown = question.shown(name)
            _place(folder / "images" / f"{shown}{suffix}").write_bytes(data)
            if question.wants_map(name):
                _place(folder / "masks" / f"{shown}.png")
            first = first_map(question, name, suggested)
            if first is not None:
                Image.fromarray(first).save(_place(folder / SUGGESTED / f"{shown}.png"))
                begun = True
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        writer.writerows((question.shown(name), "", "", "", "") for name in question.ids)
        (folder / TABLE).write_bytes(text.getvalue().encode("utf-8-sig"))  # so that spreadsheets see UTF-8
        (folder / "classes.txt").write_text("\n".join(question.classes) + "\n", encoding="utf-8")
        if question.spared:
            (folder / SPARED).write_text(
                "\n".join(map(question.shown, question.spared)) + "\n", encoding="utf-8"
            )
        query = {"run": question.run, "query": question.query_index}
        (folder / QUERY).write_text(json.dumps(query, ensure_ascii=False) + "\n", encoding="utf-8")
        readme = fill_template("folder.txt", question=question, begun=begun)
        (folder / "README.txt").write_text(readme, encoding="utf-8")
    return [out / TABLE]


def _place(path: Path) -> Path:
    """The path of a file, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def read_answers(
    path: Path, question: Question, suggested: Suggested | None = None, keep_odd_maps: bool = False
) -> list[Answer]:
    """Read the answers in an exported folder, or in its table, in the order of the query.

    A line with neither label nor `skipped` is left out. An annotator's mask is masks/<annotator>/<id>.png,
    or masks/<id>.png if only one person answered. Masks are ignored if the question asks for none.
    `suggested` tells the maps that people took over. Raises InputError with everything that is wrong and the
    line where it is; see `in_order` for `keep_odd_maps`.
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
    names = {*map(question.shown, question.ids), *(row["id"] for _, row in rows)}
    masks = _Masks(root / "masks", answered, names)
    answers: list[tuple[str, Answer]] = []
    for place, row in rows:
        shown, name = row["id"], question.meant(row["id"])
        if name not in question.row_of:
            problems.add(place, question.id_problem(name))
            continue
        place += f" (id {shown!r})"
        try:
            answer = _answer(row, masks, question)
            if answer is not None and answer.mask is not None:
                begun = (root / SUGGESTED / f"{shown}.png").exists()
                first = first_map(question, name, suggested)
                answer = replace(answer, kind=kind_of(answer.mask, first, begun))
        except (ValueError, files.Unreadable) as error:
            problems.add(place, str(error))
            continue
        if answer is not None:
            answers.append((place, answer))
    if question.maps:
        masks.spare({one_person(row["annotator"]) for _, row in rows}, problems)
    return in_order(question, answers, problems, keep_odd_maps)


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


def _answer(row: dict[str, str], masks: "_Masks", question: Question) -> Answer | None:
    """Read one line; None if it is not answered yet. ValueError and Unreadable say what is wrong with it."""
    name, annotator = question.meant(row["id"]), row["annotator"]
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
    path = masks.of(row["id"], annotator) if question.maps else None
    mask = None if path is None else _mask(path, masks.root.parent, question.images[question.row_of[name]])
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


class _Masks:
    """The files in masks/. A person's own folder there may be spelt in another case than in the table.

    answered: how many people gave a class, by the name of the image in the table.
    names: the names that images may have there. A person may not be called like the first part of one.
    """

    def __init__(self, root: Path, answered: Mapping[str, int], names: Set[str]) -> None:
        self.root, self.answered, self.names = root, answered, names
        self.taken = {one_person(name.partition("/")[0]) for name in names if "/" in name}

    def of(self, shown: str, annotator: str) -> Path | None:
        """Find an annotator's mask of an image, or None. Raises ValueError if it is unclear whose it is."""
        shared = self.root / f"{shown}.png"
        own = [] if not annotator else self._own(shown, annotator)
        if len(own) > 1:
            names = " and ".join(path.relative_to(self.root.parent).as_posix() for path in own)
            raise ValueError(f"two masks by {annotator!r}, {names}; keep one of them")
        if own or not shared.exists():
            return own[0] if own else None
        if self.answered[shown] != 1 and annotator:
            raise ValueError(f"whose is masks/{shown}.png? Several people answered: use masks/<annotator>/")
        if self.answered[shown] != 1:
            raise ValueError("several people answered: name the annotators, masks go to masks/<annotator>/")
        return shared

    def _own(self, shown: str, annotator: str) -> list[Path]:
        """The masks of an image in the folders that are called like the annotator."""
        if "/" in annotator or not names_a_file(annotator):
            raise ValueError(f"annotator {annotator!r} cannot be a folder's name; use letters and digits")
        person = one_person(annotator)
        if person in self.taken:
            raise ValueError(f"annotator {annotator!r} is also how an id begins; choose another name")
        folders = sorted(self.root.iterdir()) if self.root.is_dir() else []
        own = [one / f"{shown}.png" for one in folders if one_person(one.name) == person]
        return [path for path in own if path.exists()]

    def spare(self, people: Set[str], problems: Problems) -> None:
        """Report pictures that belong to no line: their names are most likely slips."""
        for path in sorted(self.root.rglob("*")):
            below = path.relative_to(self.root)
            if path.suffix.lower() not in files.SUFFIXES or any(part.startswith(".") for part in below.parts):
                continue
            name = below.as_posix().removesuffix(".png")
            first, _, rest = name.partition("/")
            if name not in self.names and not (one_person(first) in people and rest in self.names):
                problems.add(f"masks/{below.as_posix()}", "belongs to no line; expected masks/<id>.png")


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
