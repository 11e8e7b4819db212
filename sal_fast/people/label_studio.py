"""A query as tasks for Label Studio, with the pictures in them, and its JSON export as answers."""

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from sal_fast.data import files
from sal_fast.data.readers.brush_code import encode
from sal_fast.data.readers.label_studio import as_array, as_object, drawn_regions, identity, number
from sal_fast.data.readers.label_studio import drawn as drawn_pixels
from sal_fast.data.readers.label_studio import tasks as read_tasks
from sal_fast.errors import InputError
from sal_fast.people.question import (
    Answer,
    Kind,
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

PART = 100 * 2**20  # characters in one tasks file; Label Studio takes uploads of at most 250 MB
FEW = 8  # up to so many classes have a digit each to choose them; more have a search field
MODEL = "sal-fast"  # the name under which Label Studio shows the predictions
UNSEEN = "\u2060"  # a joiner of no width


def export(question: Question, out: Path, suggested: Suggested | None = None) -> list[Path]:
    """Make the folder `out` with tasks.json (the pictures are in it), config.xml and README.txt.

    Beyond 100 MB there are tasks-2.json and so on. Maps that a model suggests become predictions, from which
    people begin. Returns the tasks files. Raises InputError if `out` holds anything, or if images cannot be
    read; it then names all of them.
    """
    names: list[str] = []
    begun = False
    with new_folder(out) as folder:
        part: list[str] = []
        length = 0

        def write() -> None:
            names.append("tasks.json" if not names else f"tasks-{len(names) + 1}.json")
            (folder / names[-1]).write_text("[\n" + ",\n".join(part) + "\n]\n", encoding="utf-8")

        for name, data, suffix in pictures(question):
            kind = "jpeg" if suffix == ".jpg" else "png"
            image = f"data:image/{kind};base64,{b64encode(data).decode()}"
            shown = question.shown(name)
            fields: dict[str, Any] = {
                "id": shown,
                "run": question.run,
                "query": question.query_index,
                "image": image,
            }
            if question.spared:
                fields["wanted"] = "class and map" if question.wants_map(name) else "class only"
            task: dict[str, Any] = {"data": fields}
            first = first_map(question, name, suggested)
            if first is not None:
                task["predictions"] = [_prediction(first)]
                begun = True
            text = json.dumps(task, ensure_ascii=False)
            if part and length + len(text) > PART:
                write()
                part, length = [], 0
            length += len(text)
            part.append(text)
        write()
        (folder / "config.xml").write_text(interface(question), encoding="utf-8")
        readme = fill_template(
            "label_studio.txt",
            question=question,
            search=len(question.classes) > FEW,
            begun=begun,
            model=MODEL,
            tasks=names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}, one after the other",
        )
        (folder / "README.txt").write_text(readme, encoding="utf-8")
    return [out / name for name in names]


def _prediction(mask: np.ndarray) -> dict[str, Any]:
    """A map as Label Studio's prediction. It names no class, because people would be led by it."""
    height, width = mask.shape
    region = {
        "id": "model",
        "from_name": "map",
        "to_name": "image",
        "type": "brushlabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode(mask), "brushlabels": ["salient"]},
    }
    return {"model_version": MODEL, "result": [region]}


def interface(question: Question) -> str:
    """The labeling interface as XML: the picture, the classes, and a brush if maps are wanted.

    If some images want a map and others do not, the field `wanted` of each task is shown above it.
    """
    text = fill_template(
        "label_studio.xml",
        question=question,
        search=len(question.classes) > FEW,
        choices=[quoteattr(_choice(name)) for name in question.classes],
        unseen=UNSEEN,  # without it as a key letters choose classes, those of brush and eraser among them
    )
    return text.replace(UNSEEN, f"&#{ord(UNSEEN)};")  # so that it can be seen in the file, and pasted


def _choice(label: str) -> str:
    """A class as the interface spells it. $word would be a field of the task, so we put a joiner between."""
    return label.replace("$", f"${UNSEEN}")


def read_answers(
    file: Path, question: Question, suggested: Suggested | None = None, keep_odd_maps: bool = False
) -> list[Answer]:
    """Read the answers in Label Studio's JSON export, in the order of the query.

    The regions of one annotation are united. Drafts and predictions are ignored, and so are tasks without an
    annotation and those of the run's other queries; a file of such tasks alone is refused. Masks are ignored
    if the question asks for none. `suggested` tells the maps that people took over. Raises InputError with
    everything that is wrong and the task where it is; see `in_order` for `keep_odd_maps`.
    """
    problems = Problems(file.name)
    answers: list[tuple[str, Answer]] = []
    elsewhere: list[tuple[object, str]] = []
    tasks = read_tasks(file)
    if tasks and not any({"id", "run", "query"} <= task["data"].keys() for task in tasks):
        raise InputError(
            f"{file.name}: an export of another project (no task has id, run and query of sal-fast); export "
            f"the project that holds this query's tasks.json"
        )
    numbers = _numbers(tasks)
    for nth, task in enumerate(tasks, start=1):
        place, data = f"task {identity(task, nth)}", task["data"]
        shown = data.get("id")
        if "run" not in data or "query" not in data or not isinstance(shown, str):
            problems.add(place, "has no id, run and query of sal-fast; leave other tasks out of the project")
            continue
        if data["run"] == question.run and data["query"] != question.query_index:
            elsewhere.append((data["query"], place))
            continue
        question.refuse_others(data["run"], data["query"], f"{file.name}, {place}")
        place += f" (id {shown!r})"
        name = question.meant(shown)
        if name not in question.row_of:
            problems.add(place, question.id_problem(name))
            continue
        given = bool(task.get("predictions"))
        annotations = [as_object(one) for one in task["annotations"]]
        for nth_annotation, annotation in enumerate(annotations, start=1):
            which = f", annotation {identity(annotation, nth_annotation)}" if len(annotations) > 1 else ""
            try:
                answer = _answer(annotation, name, question, suggested, given)
                person = numbers.get(one_person(answer.annotator), answer.annotator)
                answers.append((place + which, replace(answer, annotator=person)))
            except (ValueError, files.Unreadable) as error:
                problems.add(place + which, str(error))
    if elsewhere and len(elsewhere) == len(tasks):
        query, place = elsewhere[0]
        question.refuse_others(question.run, query, f"{file.name}, {place}")
    return in_order(question, answers, problems, keep_odd_maps)


def _person(by: object) -> str:
    """The name of a person: their number in Label Studio, or their address where there is no number.

    Exports name people by a number, by an address, or by both. The number is in most of them, so it is what
    makes one person of several exports.
    """
    if isinstance(by, dict):
        by = by.get("email") if by.get("id") is None else by.get("id")
    return "" if by is None else str(by).strip()


def _numbers(tasks: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The number of each person whose address and number are both in the file, by their `one_person`."""
    people = [as_object(as_object(one).get("completed_by")) for task in tasks for one in task["annotations"]]
    both = [one for one in people if one.get("email") and one.get("id") is not None]
    return {one_person(str(one["email"])): _person(one) for one in both}


def _answer(
    annotation: Mapping[str, Any], name: str, question: Question, suggested: Suggested | None, given: bool
) -> Answer:
    """Read one annotation. ValueError and Unreadable say what is wrong with it.

    `given` is true if the task had a prediction.
    """
    annotator = _person(annotation.get("completed_by"))
    time = annotation.get("lead_time")
    seconds = None if time is None else number(time, 0, 1e9, "a lead_time")
    if annotation.get("was_cancelled") is True:
        return Answer(name, None, None, annotator, seconds, skipped=True)
    regions = [as_object(region) for region in as_array(annotation.get("result"))]
    chosen = [
        choice
        for region in regions
        if (region.get("type"), region.get("from_name")) == ("choices", "label")
        for choice in as_array(as_object(region.get("value")).get("choices"))
    ]
    if len(chosen) != 1:
        raise ValueError(f"{len(chosen) or 'no'} classes are chosen, expected one; choose one, or skip")
    label = next((name for name in question.classes if chosen[0] in (name, _choice(name))), None)
    if label is None:
        raise ValueError(question.class_problem(str(chosen[0])))
    mask = _mask(regions, question.images[question.row_of[name]]) if question.maps else None
    kind = None
    if mask is not None:
        kind = _kind(regions, mask, first_map(question, name, suggested), given)
    return Answer(name, label, mask, annotator, seconds, skipped=False, kind=kind)


def _kind(regions: list[dict[str, Any]], mask: np.ndarray, first: np.ndarray | None, given: bool) -> Kind:
    """The way in which a map was made.

    A region says if it began as a prediction's, and if it was changed. If none says so, people began from the
    prediction that the task had.
    """
    origins = {str(region.get("origin")) for _, region in drawn_regions(regions)}
    if origins == {"prediction"}:
        return "accepted"
    begun = bool(origins & {"prediction", "prediction-changed"}) or (given and "manual" not in origins)
    return kind_of(mask, first, begun)


def _mask(regions: list[dict[str, Any]], image: Path) -> np.ndarray | None:
    """Unite everything that was drawn, as uint8 [H, W] of 0 or 255; None if nothing was."""
    drawn = drawn_regions(regions)
    if not drawn:
        return None
    size = files.read(image).size
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    for kind, region in drawn:
        mask[drawn_pixels(kind, region, size)] = 255
    return mask
