"""The names that annotators see do not tell the class of an image: keys stand for ids that could."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sal_fast.errors import InputError
from sal_fast.people import folder, label_studio
from sal_fast.people.question import Answer, Question


def question(root: Path, ids: list[str], classes: list[str]) -> Question:
    """Black pictures, 20 wide and 10 high."""
    paths = [root / f"{i}.png" for i in range(len(ids))]
    for path in paths:
        Image.fromarray(np.zeros((10, 20, 3), dtype=np.uint8)).save(path)
    return Question("run", 1, ids, paths, classes, True)


@pytest.mark.parametrize(
    ("ids", "classes", "secret"),
    [
        (["birds/3", "x"], ["birds", "cats"], True),
        (["x", "y/BIRDS/3"], ["birds", "cats"], True),
        (["sparrow_012"], ["Sparrow", "Gull"], True),
        (["a/Sea-Lion7"], ["sea lion", "seal"], True),
        (["MÖWE1"], ["Möwe", "Gull"], True),
        (["img 01", "img 02"], ["Sparrow", "Gull"], False),
        (["n02119789/7"], ["red fox", "dog"], False),
        (["M\u00f6we1"], ["Mo\u0308we", "Gull"], True),  # of another Unicode form
        (["a!b"], ["!", "?"], True),
        (["ab"], ["!", "?"], False),
        (["001"], ["1", "2"], True),  # by chance
    ],
)
def test_which_ids_tell_the_class(ids: list[str], classes: list[str], secret: bool, tmp_path: Path) -> None:
    asked = question(tmp_path, ids, classes)
    assert asked.secret == secret
    for name in ids:
        assert asked.shown(name) == (asked.key(name) if secret else name)
        assert asked.meant(asked.shown(name)) == asked.meant(name) == name
    assert asked.meant("another") == "another"


def test_no_file_of_an_export_tells_the_class(tmp_path: Path) -> None:
    """Neither a name of a file or folder nor a text has an id or a part of one."""
    ids = ["Sparrow/s1", "gull_7", "plain/p"]
    asked = question(tmp_path, ids, ["Sparrow", "Gull"])
    keys = [asked.key(name) for name in ids]
    folder.export(asked, tmp_path / "folder")
    label_studio.export(asked, tmp_path / "ls")
    made = [path for out in ("folder", "ls") for path in (tmp_path / out).rglob("*")]
    assert {path.stem for path in tmp_path.glob("folder/images/*")} == set(keys)
    assert {path.name for path in tmp_path.glob("folder/masks/*")} == set()
    for path in made:
        said = path.relative_to(tmp_path).as_posix()
        if path.suffix in (".csv", ".json", ".txt", ".xml") and path.name != "classes.txt":
            said += path.read_text(encoding="utf-8-sig")
        for part in ("Sparrow/", "s1", "gull_7", "plain"):
            assert part not in said, path
    table = (tmp_path / "folder" / "answers.csv").read_text(encoding="utf-8-sig").split()
    assert [line.split(",")[0] for line in table[1:]] == keys
    tasks = json.loads((tmp_path / "ls" / "tasks.json").read_text(encoding="utf-8"))
    assert [task["data"]["id"] for task in tasks] == keys
    root = ElementTree.fromstring((tmp_path / "ls" / "config.xml").read_text(encoding="utf-8"))
    assert [header.get("value") for header in root.iter("Header")] == ["$id"]
    for readme in (tmp_path / "folder" / "README.txt", tmp_path / "ls" / "README.txt"):
        assert "key" in readme.read_text(encoding="utf-8")


def test_imports_take_keys_and_ids(tmp_path: Path) -> None:
    """Ids are those of exports that were made before there were keys."""
    asked = question(tmp_path, ["Sparrow/s1", "Gull/g"], ["Sparrow", "Gull"])
    mask = np.zeros((10, 20), dtype=np.uint8)
    mask[2:5, 3:8] = 255
    expected = [Answer(name, "Gull", None, "ada", None, False) for name in asked.ids]
    for shown in (asked.ids, [asked.key(name) for name in asked.ids], [asked.ids[0], asked.key("Gull/g")]):
        out = tmp_path / shown[0].replace("/", "-") / shown[1].replace("/", "-")
        folder.export(asked, out)
        for name in shown:
            (out / "masks" / name).parent.mkdir(exist_ok=True)
            Image.fromarray(mask).save(out / "masks" / f"{name}.png")
        lines = "".join(f"{name},Gull,ada,,\n" for name in shown)
        (out / "answers.csv").write_text("id,label,annotator,seconds,skipped\n" + lines)
        answers = folder.read_answers(out, asked)
        assert [(one.id, one.label, one.kind) for one in answers] == [
            (one.id, "Gull", "drawn") for one in expected
        ]
        for one in answers:
            np.testing.assert_array_equal(one.mask, mask)
        choice = {"from_name": "label", "type": "choices", "value": {"choices": ["Gull"]}}
        tasks = [
            {
                "data": {"id": name, "run": "run", "query": 1},
                "annotations": [{"completed_by": {"email": "ada"}, "result": [choice]}],
            }
            for name in shown
        ]
        (out / "export.json").write_text(json.dumps(tasks))
        assert label_studio.read_answers(out / "export.json", asked) == expected


def test_an_image_by_its_key_and_by_its_id_is_one(tmp_path: Path) -> None:
    asked = question(tmp_path, ["Sparrow/s1", "Gull/g"], ["Sparrow", "Gull"])
    folder.export(asked, tmp_path / "out")
    lines = f"Gull/g,Gull,ada,,\n{asked.key('Gull/g')},Sparrow,Ada,,\n"
    (tmp_path / "out" / "answers.csv").write_text("id,label,annotator,seconds,skipped\n" + lines)
    with pytest.raises(InputError, match=r"line 3 \(id '[0-9a-f]{16}'\): a second answer by 'Ada'"):
        folder.read_answers(tmp_path / "out", asked)


def test_a_mask_that_is_not_named_as_the_table_names_its_image(tmp_path: Path) -> None:
    """It would be lost: the table has keys, and somebody named the mask by the id."""
    asked = question(tmp_path, ["s1 sparrow", "gull"], ["Sparrow", "Gull"])
    out = tmp_path / "out"
    folder.export(asked, out)
    Image.fromarray(np.zeros((10, 20), dtype=np.uint8)).save(out / "masks" / "gull.png")
    with pytest.raises(InputError, match=r"masks/gull\.png: belongs to no line; expected masks/<id>\.png"):
        folder.read_answers(out, asked)
