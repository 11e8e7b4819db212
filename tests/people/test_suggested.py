"""The model's map in what annotators get, and what they made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sal_fast.data.readers.brush_code import decode, encode
from sal_fast.errors import InputError
from sal_fast.people import folder, label_studio
from sal_fast.people.question import Answer, Question
from sal_fast.people.suggested import Suggested, first_map

HEADER = "id,label,annotator,seconds,skipped\n"


@pytest.fixture
def asked(tmp_path: Path) -> Question:
    """Four pictures, 20 wide and 10 high: with a map, without one, with a flat one, and known already."""
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths:
        Image.fromarray(np.zeros((10, 20, 3), dtype=np.uint8)).save(path)
    ids = ["one", "none", "flat", "known"]
    return Question("run", 1, ids, paths, ["Sparrow", "Gull"], True, has_map=frozenset({"known"}))


@pytest.fixture
def suggested() -> Suggested:
    """Maps of 2 x 2, of two classes: the most probable class is in the top left corner."""
    maps = np.zeros((3, 2, 2, 2), dtype=np.uint8)
    maps[0, 0, 0, 0] = maps[2, 0, 0, 0] = 255
    maps[:, 1, 1, 1] = 255
    classes = np.array([[1, 0]] * 3)
    return Suggested(["one", "flat", "known"], classes, np.full((3, 2), 0.5, np.float32), maps)


def expected() -> np.ndarray:
    """The first map, worked out by hand: linear between the centres of the four pixels, above a half."""
    across = np.clip((np.arange(20) + 0.5) / 10 - 0.5, 0, 1)
    down = np.clip((np.arange(10) + 0.5) / 5 - 0.5, 0, 1)
    return ((1 - down)[:, None] * (1 - across) > 0.5).astype(np.uint8) * 255


def test_the_first_map(asked: Question, suggested: Suggested) -> None:
    """It is the most probable class's; a flat one, and one that nobody wants, is none."""
    np.testing.assert_array_equal(first_map(asked, "one", suggested), expected())
    assert [first_map(asked, name, suggested) for name in ("none", "flat", "known")] == [None] * 3
    assert first_map(asked, "one", None) is None


def test_an_odd_map_is_not_suggested(asked: Question, suggested: Suggested) -> None:
    """People who took it over would be asked back."""
    suggested.maps[0, 0] = 255
    assert first_map(asked, "one", suggested) is None


def test_predictions_for_label_studio(asked: Question, suggested: Suggested, tmp_path: Path) -> None:
    """The map alone, without a class, in the form of the interface's brush."""
    label_studio.export(asked, tmp_path / "out", suggested)
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text(encoding="utf-8"))
    assert ["predictions" in task for task in tasks] == [True, False, False, False]
    (prediction,) = tasks[0]["predictions"]
    (region,) = prediction["result"]
    code = region["value"].pop("rle")
    assert prediction["model_version"] == "sal-fast"
    assert region == {
        "id": "model",
        "from_name": "map",
        "to_name": "image",
        "type": "brushlabels",
        "original_width": 20,
        "original_height": 10,
        "image_rotation": 0,
        "value": {"format": "rle", "brushlabels": ["salient"]},
    }
    np.testing.assert_array_equal(decode(code, (20, 10)), expected())
    assert 'choose the model "sal-fast"' in (tmp_path / "out" / "README.txt").read_text(encoding="utf-8")


def test_without_a_model_nothing_is_suggested(asked: Question, tmp_path: Path) -> None:
    label_studio.export(asked, tmp_path / "ls")
    folder.export(asked, tmp_path / "folder")
    assert "predictions" not in (tmp_path / "ls" / "tasks.json").read_text(encoding="utf-8")
    assert not (tmp_path / "folder" / "suggested").exists()
    for out in ("ls", "folder"):
        assert "model" not in (tmp_path / out / "README.txt").read_text(encoding="utf-8")


def region(mask: np.ndarray, origin: str | None) -> dict[str, Any]:
    value = {"format": "rle", "rle": encode(mask), "brushlabels": ["salient"]}
    size = {"original_width": 20, "original_height": 10, "image_rotation": 0}
    said = {} if origin is None else {"origin": origin}
    return {"from_name": "map", "to_name": "image", "type": "brushlabels", "value": value, **size, **said}


def test_what_people_made_of_a_prediction(asked: Question, suggested: Suggested, tmp_path: Path) -> None:
    """By the pixels, and by what Label Studio says of the regions."""
    same, other = expected(), expected()
    other[8, 15] = 255
    label_studio.export(asked, tmp_path / "out", suggested)
    (task, bare, *_) = json.loads((tmp_path / "out" / "tasks.json").read_text(encoding="utf-8"))

    def kind(task: dict[str, Any], *regions: dict[str, Any]) -> str | None:
        choice = {"from_name": "label", "type": "choices", "value": {"choices": ["Gull"]}}
        task["annotations"] = [{"completed_by": 1, "result": [choice, *regions]}]
        file = tmp_path / "export.json"
        file.write_text(json.dumps([task]))
        (answer,) = label_studio.read_answers(file, asked, suggested)
        return answer.kind

    assert kind(task, region(same, "manual")) == "accepted"
    assert kind(task, region(same, None)) == "accepted"
    assert kind(task, region(other, "prediction")) == "accepted"  # the brush's edge was drawn in another way
    assert kind(task, region(other, "prediction-changed")) == "corrected"
    assert kind(task, region(same, "prediction"), region(other, "manual")) == "corrected"
    assert kind(task, region(other, None)) == "corrected"
    assert kind(task, region(other, "manual")) == "drawn"  # the prediction was deleted, or never shown
    assert kind(bare, region(other, None)) == "drawn"
    assert kind(task) is None


def test_suggested_files_of_a_folder(asked: Question, suggested: Suggested, tmp_path: Path) -> None:
    """A copy is accepted, a changed copy corrected, and a map without a suggestion drawn."""
    out = tmp_path / "out"
    folder.export(asked, out, suggested)
    assert [path.relative_to(out).as_posix() for path in out.rglob("suggested/*")] == ["suggested/one.png"]
    with Image.open(out / "suggested" / "one.png") as image:
        np.testing.assert_array_equal(np.asarray(image), expected())
    assert "suggested/<id>.png" in (out / "README.txt").read_text(encoding="utf-8")
    (out / "answers.csv").write_text(HEADER + "one,Gull,ada,,\nnone,Gull,ada,,\n")

    def answers(mask: np.ndarray) -> list[Answer]:
        for name in ("one", "none"):
            Image.fromarray(mask).save(out / "masks" / f"{name}.png")
        return folder.read_answers(out, asked, suggested)

    assert [one.kind for one in answers(expected())] == ["accepted", "drawn"]
    other = expected()
    other[9, 19] = 255
    assert [one.kind for one in answers(other)] == ["corrected", "drawn"]
    assert [one.kind for one in folder.read_answers(out, asked)] == ["corrected", "drawn"]
    (out / "suggested" / "one.png").unlink()
    assert [one.kind for one in answers(other)] == ["drawn", "drawn"]


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.full((10, 20), 255, np.uint8), "the map marks nearly all of the picture"),
        (
            np.pad(np.zeros((6, 14), np.uint8), ((2, 2), (3, 3)), constant_values=255),
            "the map looks inverted, as it marks the border and leaves out the middle",
        ),
    ],
    ids=["full", "inverted"],
)
def test_odd_maps_are_asked_back(asked: Question, mask: np.ndarray, said: str, tmp_path: Path) -> None:
    """Both tools refuse them, all at once, and take them if they are told to; an empty map is taken."""
    out = tmp_path / "out"
    folder.export(asked, out)
    (out / "answers.csv").write_text(HEADER + "".join(f"{name},Gull,ada,,\n" for name in asked.ids[:3]))
    masks = [mask, np.zeros_like(mask), mask]
    for name, one in zip(asked.ids, masks, strict=False):
        Image.fromarray(one).save(out / "masks" / f"{name}.png")
    choice = {"from_name": "label", "type": "choices", "value": {"choices": ["Gull"]}}
    tasks = [
        {
            "id": number,
            "data": {"id": name, "run": "run", "query": 1},
            "annotations": [{"completed_by": "ada", "result": [choice, region(one, "manual")]}],
        }
        for number, (name, one) in enumerate(zip(asked.ids, masks, strict=False), start=1)
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    for tool, path, places in (
        (folder, out, ("line 2 (id 'one')", "line 4 (id 'flat')")),
        (label_studio, tmp_path / "export.json", ("task 1 (id 'one')", "task 3 (id 'flat')")),
    ):
        with pytest.raises(InputError) as caught:
            tool.read_answers(path, asked)
        lines = str(caught.value).split("\n  ")
        assert lines[0].endswith(": 2 problems:")
        advice = "; draw it again, or keep it with --keep-odd-maps True"
        assert lines[1:] == [f"{place}: {said}{advice}" for place in places]
        kept = tool.read_answers(path, asked, keep_odd_maps=True)
        for one, given in zip(kept, masks, strict=True):
            np.testing.assert_array_equal(one.mask, given)
