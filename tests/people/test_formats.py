"""What people are asked and what they answer, the same through every format."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sal_fast.data.readers.brush_code import encode
from sal_fast.errors import InputError
from sal_fast.people import folder, label_studio
from sal_fast.people.question import SHOWN, Answer, Question

CLASSES = ["Sparrow", "Möwe", "<zz>&\"'", "w,q;c", " spaced", "$price", "77"]  # none is part of an id
TOLD = ["Sparrow", "Möwe", "<b>&\"'", "a,b;c", " spaced", "$price", "2"]  # some are
ODD = ['b/<i>ß & "q".x', "Vögel/'1'", "001", "a/b/c", "=1+1", "b,c;d"]


def pose(root: Path, count: int = 6, maps: bool = True, classes: list[str] = CLASSES) -> Question:
    """A query over small pictures of odd sizes, with odd ids."""
    rng = np.random.default_rng(0)
    ids = ODD[:count] + [f"birds/{i}" for i in range(count - len(ODD))]
    paths = []
    for index in range(count):
        path = root / "pictures" / f"{index}.{'png' if index % 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (9 + index, 14 - index % 5, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return Question("pool-sal-s0", 3, ids, paths, classes, maps)


def drawn(question: Question, name: str, seed: int = 0) -> np.ndarray:
    """A random mask at the picture's size."""
    with Image.open(question.images[question.ids.index(name)]) as image:
        width, height = image.size
    rng = np.random.default_rng([seed, question.ids.index(name)])
    return (rng.random((height, width)) < 0.4).astype(np.uint8) * 255


def annotation(answer: Answer, number: int = 1) -> dict[str, Any]:
    """As Label Studio exports it."""
    result: list[dict[str, Any]] = []
    if answer.mask is not None:
        height, width = answer.mask.shape
        brush = {"format": "rle", "rle": encode(answer.mask), "brushlabels": ["salient"]}
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        region = {"id": "m", "from_name": "map", "to_name": "image", "type": "brushlabels"}
        result.append({**region, "value": brush, **size})
    if answer.label is not None:
        choice = {"choices": [answer.label]}
        result.append(
            {"id": "l", "from_name": "label", "to_name": "image", "type": "choices", "value": choice}
        )
    return {
        "id": number,
        "completed_by": {"email": answer.annotator},
        "result": result,
        "was_cancelled": answer.skipped,
        "lead_time": answer.seconds,
    }


def by_label_studio(out: Path, question: Question, answers: list[Answer]) -> Path:
    tasks = json.loads((out / "tasks.json").read_text(encoding="utf-8"))
    for number, task in enumerate(tasks, start=1):
        mine = [answer for answer in answers if question.shown(answer.id) == task["data"]["id"]]
        task["id"] = number
        task["annotations"] = [annotation(answer, place) for place, answer in enumerate(mine, start=1)]
        task["predictions"], task["drafts"] = [{"result": [{"type": "brush"}]}], [1]
    file = out / "export.json"
    file.write_text(json.dumps(tasks), encoding="utf-8")
    return file


def by_folder(out: Path, question: Question, answers: list[Answer]) -> Path:
    with open(out / "answers.csv", encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["id"] for line in lines] == [question.shown(name) for name in question.ids]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, lines[0])
    writer.writeheader()
    several = len({answer.annotator for answer in answers}) > 1
    for line in lines:
        mine = [answer for answer in answers if question.shown(answer.id) == line["id"]]
        if not mine:
            writer.writerow(line)
        for answer in mine:
            filled = {"label": answer.label or "", "annotator": answer.annotator}
            filled["skipped"] = "yes" if answer.skipped else ""
            filled["seconds"] = "" if answer.seconds is None else str(answer.seconds)
            writer.writerow(line | filled)
            if answer.mask is not None:
                path = out / "masks" / (answer.annotator if several else "") / f"{line['id']}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(answer.mask).save(path)
    (out / "answers.csv").write_text(text.getvalue(), encoding="utf-8")
    return out


Reply = Callable[[Path, Question, list[Answer]], Path]
FORMATS = [
    pytest.param(label_studio, by_label_studio, id="label-studio"),
    pytest.param(folder, by_folder, id="folder"),
]
formats = pytest.mark.parametrize(("form", "reply"), FORMATS)


def same(got: list[Answer], expected: list[Answer]) -> None:
    assert [answer.id for answer in got] == [answer.id for answer in expected]
    for one, other in zip(got, expected, strict=True):
        for field in ("label", "annotator", "seconds", "skipped"):
            assert getattr(one, field) == getattr(other, field), (one.id, field)
        if other.mask is None:
            assert one.mask is None, one.id
        else:
            assert one.mask is not None, one.id
            assert one.mask.dtype == np.uint8
            np.testing.assert_array_equal(one.mask, other.mask)


@pytest.mark.parametrize("classes", [CLASSES, TOLD], ids=["ids", "keys"])
@formats
def test_round_trip(form: Any, reply: Reply, classes: list[str], tmp_path: Path) -> None:
    """Twenty images, equal bit by bit: drawn, drawn empty, drawn full, not drawn, skipped, not answered."""
    question = pose(tmp_path, 20, classes=classes)
    assert question.secret == (classes is TOLD)
    form.export(question, tmp_path / "out")
    given = []
    for index, name in enumerate(question.ids[:-2]):
        mask: np.ndarray | None = drawn(question, name)
        if index in (3, 4):
            mask = np.full_like(drawn(question, name), 255 * (index - 3))
        if index == 5:
            mask = None
        given.append(Answer(name, classes[index % 7], mask, "ada@example.org", index + 0.25, False))
    given[7] = Answer(question.ids[7], None, None, "ada@example.org", 2.0, True)
    file = reply(tmp_path / "out", question, given)
    same(form.read_answers(file, question, keep_odd_maps=True), given)
    full = rf"\(id {re.escape(repr(question.shown(question.ids[4])))}\): the map marks nearly all"
    with pytest.raises(InputError, match=full):
        form.read_answers(file, question)


@formats
def test_several_people(form: Any, reply: Reply, tmp_path: Path) -> None:
    question = pose(tmp_path)
    form.export(question, tmp_path / "out")
    given = [
        Answer(name, CLASSES[seed], drawn(question, name, seed), person, None, False)
        for name in question.ids
        for seed, person in enumerate(("ada", "ben", "cy"))
    ]
    given[4] = Answer(question.ids[1], None, None, "ben", 3.0, True)
    same(form.read_answers(reply(tmp_path / "out", question, given), question), given)


@formats
def test_labels_alone(form: Any, reply: Reply, tmp_path: Path) -> None:
    question = pose(tmp_path, maps=False)
    form.export(question, tmp_path / "out")
    assert not (tmp_path / "out" / "masks").exists()
    given = [Answer(name, "Möwe", None, "ada", None, False) for name in question.ids]
    same(form.read_answers(reply(tmp_path / "out", question, given), question), given)


@formats
def test_nothing_answered_yet(form: Any, reply: Reply, tmp_path: Path) -> None:
    question = pose(tmp_path)
    form.export(question, tmp_path / "out")
    assert form.read_answers(reply(tmp_path / "out", question, []), question) == []


@formats
def test_all_problems_at_once(form: Any, reply: Reply, tmp_path: Path) -> None:
    question = pose(tmp_path, 40)
    form.export(question, tmp_path / "out")
    given = [
        Answer(name, "Sparow" if index % 2 else "Sparrow", drawn(question, name), "ada", 1.0, False)
        for index, name in enumerate(question.ids)
    ]
    wide = np.zeros((5, 7), dtype=np.uint8)
    given[0] = Answer(question.ids[0], "Sparrow", wide, "ada", 1.0, False)
    with pytest.raises(InputError) as caught:
        form.read_answers(reply(tmp_path / "out", question, given), question)
    first, *lines = str(caught.value).split("\n")
    assert re.search(rf": 21 problems, the first {SHOWN}:$", first)
    assert len(lines) == SHOWN
    assert "7x5" in lines[0]
    assert repr(question.ids[1]) in lines[1]
    assert lines[1].endswith("the class 'Sparow' is none of the run's; did you mean 'Sparrow'?")


@formats
def test_answered_twice_by_one_person(form: Any, reply: Reply, tmp_path: Path) -> None:
    question = pose(tmp_path)
    form.export(question, tmp_path / "out")
    twice = [Answer(question.ids[1], label, None, "ada", None, False) for label in ("Möwe", "77")]
    with pytest.raises(InputError, match="a second answer by 'ada'"):
        form.read_answers(reply(tmp_path / "out", question, twice), question)
    form.export(question, tmp_path / "again")
    twice[0] = Answer(question.ids[1], None, None, "ada", None, True)  # skipped at first
    same(form.read_answers(reply(tmp_path / "again", question, twice), question), twice[1:])


@formats
def test_of_another_run_or_query(form: Any, reply: Reply, tmp_path: Path) -> None:
    question = pose(tmp_path)
    form.export(question, tmp_path / "out")
    file = reply(tmp_path / "out", question, [])
    for run, query, hint in (("other", 3, ", or give the run's .*"), ("pool-sal-s0", 4, "")):
        expected = f"is of query 3 of run 'pool-sal-s0', expected query {query}.* of this query{hint}$"
        with pytest.raises(InputError, match=expected):
            form.read_answers(
                file, Question(run, query, question.ids, question.images, question.classes, True)
            )


@formats
def test_unknown_id(form: Any, reply: Reply, tmp_path: Path) -> None:
    question = pose(tmp_path, 8)
    form.export(question, tmp_path / "out")
    file = reply(tmp_path / "out", question, [Answer("birds/1", "77", None, "", None, False)])
    fewer = Question(question.run, 3, question.ids[:-1], question.images[:-1], question.classes, True)
    with pytest.raises(InputError, match=r"the id 'birds/1' is none of this query's$"):
        form.read_answers(file, fewer)


@formats
def test_a_folder_with_answers_is_not_written_over(form: Any, reply: Reply, tmp_path: Path) -> None:
    question = pose(tmp_path)
    form.export(question, tmp_path / "out")
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "out").rglob("*"))
    with pytest.raises(InputError, match="choose a new folder with --out"):
        form.export(question, tmp_path / "out")
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "out").rglob("*")) == before
    (tmp_path / "empty").mkdir()
    form.export(question, tmp_path / "empty")


@formats
def test_pictures_that_cannot_be_read(form: Any, reply: Reply, tmp_path: Path) -> None:
    """All are named, and nothing is left behind."""
    question = pose(tmp_path)
    question.images[1].write_bytes(question.images[1].read_bytes()[:60])
    question.images[4].unlink()
    with pytest.raises(InputError, match=r"2 problems:(?s:.*)1\.png(?s:.*)4\.jpg: file not found"):
        form.export(question, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures"]


def shown(form: Any, out: Path, question: Question) -> list[tuple[str, bytes]]:
    """Suffix and bytes of every picture as a person's program gets it."""
    if form is folder:
        files = {
            path.relative_to(out / "images").with_suffix(""): path for path in out.glob("images/**/*.*g")
        }
        return [(files[Path(name)].suffix, files[Path(name)].read_bytes()) for name in question.ids]
    tasks = json.loads((out / "tasks.json").read_text(encoding="utf-8"))
    parts = [re.fullmatch(r"data:image/(\w+);base64,(.*)", task["data"]["image"]) for task in tasks]
    return [(f".{part[1]}".replace("e", ""), base64.b64decode(part[2])) for part in parts if part]


@formats
def test_pictures_stand_upright(form: Any, reply: Reply, tmp_path: Path) -> None:
    """Turned, deep and foreign files are written anew; plain ones are copied byte by byte."""
    rng = np.random.default_rng(1)
    ramp = np.tile(np.arange(24, dtype=np.uint8) * 10, (16, 1))
    turned, plain = Image.Exif(), Image.fromarray(ramp)
    turned[0x0112] = 6
    plain.save(tmp_path / "plain.jpg")
    plain.save(tmp_path / "turned.jpg", exif=turned, quality=95)
    plain.save(tmp_path / "turned.png", exif=turned)
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    plain.save(tmp_path / "old.tiff")
    plain.save(tmp_path / "old.bmp")
    Image.fromarray(rng.integers(0, 256, (16, 24, 4)).astype(np.uint8)).save(tmp_path / "clear.png")
    names = ["plain.jpg", "turned.jpg", "turned.png", "deep.png", "old.tiff", "old.bmp", "clear.png"]
    paths = [tmp_path / name for name in names]
    question = Question("r", 0, [f"i{i}" for i in range(7)], paths, ["a", "b"], True)
    form.export(question, tmp_path / "out")
    pictures = shown(form, tmp_path / "out", question)
    assert pictures[0] == (".jpg", paths[0].read_bytes())
    upright = np.rot90(ramp, -1)
    wanted = [ramp, upright, upright, ramp, ramp, ramp]
    for (suffix, data), name, expected in zip(pictures, names, wanted, strict=False):
        assert suffix == (".jpg" if name.endswith("jpg") else ".png")
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode in ("L", "RGB")
            assert image.getexif().get(0x0112, 1) == 1
            off = np.abs(np.asarray(image.convert("L")).astype(int) - expected)
        assert off.max() <= (8 if suffix == ".jpg" else 0), name
    with Image.open(io.BytesIO(pictures[6][1])) as image, Image.open(paths[6]) as clear:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(clear)[..., :3])
    given = [
        Answer(name, "b", np.rot90(ramp > 90).astype(np.uint8) * 255, "ada", None, False)
        for name in ("i1", "i2")
    ]
    same(form.read_answers(reply(tmp_path / "out", question, given), question), given)
