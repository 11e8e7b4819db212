"""One person is one person: in every spelling, in one file and over several imports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sal_fast.errors import InputError
from sal_fast.people import folder, label_studio
from sal_fast.people.answers import Answers, png_mask, tally
from sal_fast.people.question import Answer, Question

HEADER = "id,label,annotator,seconds,skipped\n"


@pytest.fixture
def asked(tmp_path: Path) -> Question:
    """Two pictures, 20 wide and 10 high."""
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path in paths:
        Image.fromarray(np.zeros((10, 20, 3), dtype=np.uint8)).save(path)
    return Question("run", 1, ["x", "y"], paths, ["Sparrow", "Gull"], True)


def read(root: Path, asked: Question, *by: object) -> list[Answer]:
    """Label Studio's export of the first image, with an annotation by each of these."""
    choice = {"from_name": "label", "type": "choices", "value": {"choices": ["Gull"]}}
    annotations: list[Any] = [{"completed_by": one, "result": [choice]} for one in by]
    task = {"data": {"id": "x", "run": "run", "query": 1}, "annotations": annotations}
    (root / "export.json").write_text(json.dumps([task]))
    return label_studio.read_answers(root / "export.json", asked)


ADA = {"id": 3, "email": "ada@example.org", "first_name": "Ada"}


@pytest.mark.parametrize(
    ("by", "name"),
    [
        (3, "3"),
        ("3", "3"),
        (ADA, "3"),
        ({"id": 3}, "3"),
        ({"email": " ada@example.org"}, "ada@example.org"),
        ("ada@example.org", "ada@example.org"),
        ({"id": None, "email": "ada@example.org"}, "ada@example.org"),
        ({}, ""),
        (None, ""),
    ],
)
def test_the_name_of_a_person_in_label_studio(by: object, name: str, asked: Question, tmp_path: Path) -> None:
    assert [one.annotator for one in read(tmp_path, asked, by)] == [name]


def test_an_address_whose_number_the_file_tells(asked: Question, tmp_path: Path) -> None:
    """One annotation tells both, so the other is by the same person: a second answer."""
    for other in ("ADA@example.org", {"email": "ada@example.org "}, 3, "3"):
        with pytest.raises(InputError, match="a second answer by '3'"):
            read(tmp_path, asked, ADA, other)
    names = [one.annotator for one in read(tmp_path, asked, ADA, "ben@example.org", 4)]
    assert names == ["3", "ben@example.org", "4"]


def test_an_export_that_is_imported_twice_counts_once(asked: Question, tmp_path: Path) -> None:
    """Whether it names people by number or by objects."""
    there = Answers(tmp_path / "query")
    for by in (3, ADA, {"id": 3, "email": "ADA@example.org"}, "3"):
        there.add(read(tmp_path, asked, by))
    assert [(one.id, one.annotator) for one in Answers(tmp_path / "query").kept] == [("x", "3")]
    assert tally([there])["annotators"] == 1


def test_spellings_in_a_table(asked: Question, tmp_path: Path) -> None:
    """` Ann`, `ann` and `ANN ` are one person, over lines and over imports; so are folders of masks."""
    out, there = tmp_path / "out", Answers(tmp_path / "query")
    folder.export(asked, out)
    mask = np.zeros((10, 20), dtype=np.uint8)
    mask[2:5, 3:9] = 255
    for own, spelt in (("ANN", " Ann"), ("ann lee", "Ann  Lee")):
        (out / "masks" / own).mkdir()
        Image.fromarray(mask).save(out / "masks" / own / "x.png")
        (out / "answers.csv").write_text(HEADER + f"x,Gull,{spelt},,\nx,Sparrow,ben,,\n")
        ann, ben = folder.read_answers(out, asked)
        assert ben.mask is None
        np.testing.assert_array_equal(ann.mask, mask)
        there.add([ann])
        (out / "masks" / own / "x.png").unlink()
    (out / "answers.csv").write_text(HEADER + "x,Gull,ann,,\ny,Gull,ANN ,,\n")
    there.add(folder.read_answers(out, asked))
    assert [(one.id, one.annotator) for one in there.kept] == [("x", "Ann"), ("x", "Ann  Lee"), ("y", "Ann")]
    (out / "answers.csv").write_text(HEADER + "x,Gull,ann,,\nx,Gull, ANN,,\n")
    with pytest.raises(InputError, match=r"line 3 \(id 'x'\): a second answer by 'ANN'"):
        folder.read_answers(out, asked)


def test_two_folders_of_one_person(asked: Question, tmp_path: Path) -> None:
    """Nobody can tell which of two masks counts; if the names differ in the image, each is taken."""
    out = tmp_path / "out"
    folder.export(asked, out)
    masks = []
    for number, own in enumerate(("Ann", "ann")):
        (out / "masks" / own).mkdir(exist_ok=True)
        masks.append(np.zeros((10, 20), dtype=np.uint8))
        masks[-1][number + 1, 3] = 255
        Image.fromarray(masks[-1]).save(out / "masks" / own / f"{asked.ids[number]}.png")
    if len(list((out / "masks").iterdir())) == 1:
        pytest.skip("names of files do not differ by case here")
    (out / "answers.csv").write_text(HEADER + "x,Gull,ann,,\ny,Gull,Ann,,\n")
    answers = folder.read_answers(out, asked)
    for one, mask in zip(answers, masks, strict=True):
        np.testing.assert_array_equal(one.mask, mask)
    Image.fromarray(masks[0]).save(out / "masks" / "ann" / "x.png")
    with pytest.raises(InputError, match=r"two masks by 'ann', masks/Ann/x.png and masks/ann/x.png"):
        folder.read_answers(out, asked)


def mask_of(value: int) -> np.ndarray:
    """A map that is like no other."""
    made = np.zeros((4, 4), dtype=np.uint8)
    made.flat[value] = 255
    return made


def test_maps_of_others_stay_when_a_person_withdraws(tmp_path: Path) -> None:
    """No later map is written over that of somebody else, and withdrawn maps are deleted."""
    there = Answers(tmp_path)
    people = ("ann", "ben", "cy")
    there.add(Answer("x", "Gull", mask_of(i), name, 1.0, False) for i, name in enumerate(people))
    gone = there.withdraw(lambda one: one.annotator == "ann")
    assert [one.annotator for one in gone] == ["ann"]
    assert len(list(tmp_path.rglob("x.png"))) == 2
    there = Answers(tmp_path)
    there.add([Answer("x", "Gull", mask_of(7), "cy", 1.0, False)])
    there.add([Answer("x", "Gull", mask_of(8), "dora", 1.0, False)])
    there.add([Answer("x", "Gull", mask_of(9), "Ann", 1.0, False)])
    found = {one.annotator: png_mask(tmp_path / str(one.mask)) for one in Answers(tmp_path).kept}
    for name, value in (("ben", 1), ("cy", 7), ("dora", 8), ("Ann", 9)):
        np.testing.assert_array_equal(found[name], mask_of(value), err_msg=name)


def test_a_tie_is_settled(tmp_path: Path) -> None:
    """Somebody who has not answered decides, then somebody who has, then others again; own answers stay."""
    there = Answers(tmp_path)
    there.add(
        [Answer("x", "Gull", mask_of(1), "ann", 2.0, False), Answer("x", "Tern", None, "ben", 1.0, False)]
    )
    assert there.verdicts()["x"].tie == ("Gull", "Tern")
    assert there.votes("x") == {"Gull": 1, "Tern": 1}
    there.settle("x", "Tern", "cy")
    there = Answers(tmp_path)
    assert (there.verdicts()["x"].label, there.verdicts()["x"].tie) == ("Tern", ())
    there.settle("x", "Gull", "ANN")
    there = Answers(tmp_path)
    assert there.verdicts()["x"].label == "Gull"
    assert [(one.annotator, one.label, one.settles) for one in there.kept] == [
        ("ann", "Gull", False), ("ben", "Tern", False), ("ann", "Gull", True)
    ]  # fmt: skip
    assert there.votes("x") == {"Gull": 1, "Tern": 1}
    np.testing.assert_array_equal([png_mask(one) for one in there.verdicts()["x"].masks], [mask_of(1)])
    there.settle("x", "Tern", "ben")
    there.settle("x", "Gull", "cy")
    there.settle("x", "Tern", "ben")
    there = Answers(tmp_path)
    assert there.verdicts()["x"].label == "Tern"  # the last decision, whoever made one before
    assert [one.seconds for one in there.kept] == [2.0, 1.0, None]
