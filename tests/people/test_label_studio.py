"""Label Studio's run-length code, its interface and its export, byte by byte and as it can be damaged."""

from __future__ import annotations

import copy
import json
import random
import xml.etree.ElementTree as ElementTree
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sal_fast.data.readers.brush_code import decode, encode
from sal_fast.errors import InputError
from sal_fast.people import label_studio
from sal_fast.people.question import Answer, Question

# Made by label-studio-sdk 2.1.2 (label_studio_sdk.converter.brush.mask2rle).
LIBRARY = [
    ([[0]], [0, 0, 0, 4, 57, 27, 252, 96, 0]),
    ([[255]], [0, 0, 0, 4, 57, 27, 252, 127, 224]),
    ([[0, 255, 255], [128, 0, 1]], [0, 0, 0, 24, 57, 27, 252, 96, 19, 255, 199, 1, 24, 4, 96, 32]),
    ([[0] * 300 + [255] * 20000], [0, 1, 61, 48, 57, 27, 255, 4, 175, 0, 255, 255, 255, 252, 225, 255, 252]),
]
# Drawn with the brush in Label Studio 1.23.2, on a picture of 44 x 30: soft edges, values of every kind.
DRAWN = (
    "000014a0391bff0227008c8e310d4e01194472baac023438e83558046471db462ba9c023068e9e32bd56011cdc69baac0238"
    "48d87558046d51b7eab008d7639bd56011adf0c1f000"
)
ALPHA = {
    (3, 6): 35,
    (3, 7): 16,
    (4, 6): 40,
    (4, 7): 149,
    (5, 7): 67,
    (5, 8): 160,
    (6, 8): 35,
    (6, 9): 182,
    (6, 10): 21,
    (7, 9): 6,
    (7, 10): 167,
    (7, 11): 43,
    (8, 11): 155,
    (8, 12): 77,
    (9, 12): 132,
    (9, 13): 97,
    (10, 13): 106,
    (10, 14): 111,
    (11, 14): 93,
    (11, 15): 155,
    (12, 15): 91,
}


def masks() -> list[np.ndarray]:
    """Odd sizes; nothing, all, noise, few and many grades; runs about every limit of the code."""
    rng = np.random.default_rng(5)
    made = [
        np.full(shape, value, dtype=np.uint8) for shape in ((1, 1), (7, 13), (150, 223)) for value in (0, 255)
    ]
    for shape in ((1, 2), (3, 5), (17, 31), (129, 1), (64, 65)):
        made += [(rng.random(shape) < share).astype(np.uint8) * 255 for share in (0.02, 0.5)]
        made += [rng.integers(0, top, shape).astype(np.uint8) for top in (2, 4, 256)]
    for length in (1, 2, 3, 4, 5, 63, 64, 65, 16383, 16384, 16385, 32768, 32769):
        made.append(np.repeat(np.array([0, 99, 255], dtype=np.uint8), length)[None])
    return made


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: "x".join(map(str, mask.shape)))
def test_code_there_and_back(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode(encode(mask), mask.shape[::-1]), mask)


def test_code_against_the_library() -> None:
    """Both directions, bytes alike but for an empty one at the end; literal pieces as well."""
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    rng = np.random.default_rng(6)
    for mask in masks():
        theirs, ours = brush.mask2rle(mask), encode(mask)
        assert theirs in (ours, [*ours, 0])
        np.testing.assert_array_equal(decode(theirs, mask.shape[::-1]), mask)
        np.testing.assert_array_equal(brush.decode_rle(ours).reshape(*mask.shape, 4)[..., 3], mask)
        if mask.size < 1000:
            colours = rng.integers(0, 256, (*mask.shape, 4)).astype(np.uint8)
            got = decode(brush.encode_rle(colours.ravel()), mask.shape[::-1])
            np.testing.assert_array_equal(got, colours[..., 3])


@pytest.mark.parametrize(("mask", "code"), LIBRARY)
def test_bytes_of_the_library(mask: list[list[int]], code: list[int]) -> None:
    pixels = np.array(mask, dtype=np.uint8)
    np.testing.assert_array_equal(decode(code, pixels.shape[::-1]), pixels)
    assert code in (encode(pixels), [*encode(pixels), 0])


def test_bytes_of_the_brush() -> None:
    alpha = decode(list(bytes.fromhex(DRAWN)), (44, 30))
    assert {(int(y), int(x)): int(alpha[y, x]) for y, x in np.argwhere(alpha)} == ALPHA


def test_literal_pieces() -> None:
    """Written bit by bit from the description of the code: one run of four, then a piece of twelve bytes."""
    values = [7] * 4 + [*range(100, 112)]
    bits = f"{16:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += f"1{0:02b}{3:03b}{7:08b}" + f"0{1:02b}{11:04b}" + "".join(f"{value:08b}" for value in values[4:])
    bits += "0" * (-len(bits) % 8)
    code = [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]
    assert decode(code, (4, 1)).tolist() == [[7, 103, 107, 111]]


@pytest.mark.parametrize(
    "code", [None, 5, "AAAA", [], [1, 2], [256] * 20, [-1] * 20, [True] * 20, [0.0] * 20, [[0]]]
)
def test_no_code_at_all(code: object) -> None:
    with pytest.raises(ValueError, match="the brush's code"):
        decode(code, (4, 1))


def test_a_code_that_claims_more_than_the_picture() -> None:
    """Refused by its first bytes: 2^32 - 1 values are never made."""
    with pytest.raises(ValueError, match="4,294,967,295 values, expected 4x1 pixels of four"):
        decode([255] * 60, (4, 1))


@pytest.mark.parametrize("seed", range(40))
def test_damaged_codes(seed: int) -> None:
    """Cut, flipped, or of noise: a picture of the right size, or ValueError."""
    rng = random.Random(seed)
    mask = (np.random.default_rng(seed).random((20, 31)) < 0.3).astype(np.uint8) * 255
    code = encode(mask)
    for _ in range(50):
        broken = code[:]
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(4 if rng.random() < 0.5 else 0, len(broken))] = rng.randrange(256)
        if rng.random() < 0.3:
            del broken[rng.randrange(len(broken)) :]
        if rng.random() < 0.2:
            broken[7:] = rng.randbytes(len(broken))
        with suppress(ValueError):
            assert decode(broken, (31, 20)).shape == (20, 31)


def question(root: Path, classes: list[str] | None = None, maps: bool = True) -> Question:
    """Two pictures, 20 wide and 10 high."""
    paths = [root / f"{name}.png" for name in ("a", "b")]
    for path in paths:
        Image.fromarray(np.zeros((10, 20, 3), dtype=np.uint8)).save(path)
    return Question("run", 1, ["birds/a", "birds/b"], paths, classes or ["Sparrow", "Möwe"], maps)


def region(kind: str, **value: Any) -> dict[str, Any]:
    size = {"original_width": 20, "original_height": 10, "image_rotation": 0}
    return {"id": "r", "from_name": "map", "to_name": "image", "type": kind, "value": value, **size}


def choice(*labels: str) -> dict[str, Any]:
    return {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": list(labels)}}


def brush(mask: np.ndarray) -> dict[str, Any]:
    return region("brushlabels", format="rle", rle=encode(mask), brushlabels=["salient"])


def task(*result: Any, number: int = 7, **other: Any) -> dict[str, Any]:
    annotation = {"id": 5, "completed_by": 3, "result": list(result), "was_cancelled": False, "lead_time": 4}
    data = {"id": "birds/a", "run": "run", "query": 1, "image": "data:"}
    return {"id": number, "data": data, "annotations": [annotation | other]}


def read(root: Path, tasks: object, ask: Question | None = None) -> list[Answer]:
    file = root / "export.json"
    file.write_text(json.dumps(tasks), encoding="utf-8")
    return label_studio.read_answers(file, ask or question(root))


def test_regions_are_united(tmp_path: Path) -> None:
    left, right = np.zeros((2, 10, 20), dtype=np.uint8)
    left[2:5, :4] = 255
    right[4:9, 3:9] = 255
    (answer,) = read(tmp_path, [task(brush(left), choice("Möwe"), brush(right))])
    np.testing.assert_array_equal(answer.mask, left | right)
    assert (answer.annotator, answer.seconds) == ("3", 4.0)


def test_soft_edges_and_translucent_brushes(tmp_path: Path) -> None:
    """Drawn is what has more than half of the region's strongest value."""
    soft = np.zeros((10, 20), dtype=np.uint8)
    soft[3, 3:8] = 40, 127, 128, 200, 255
    faint = np.zeros((10, 20), dtype=np.uint8)
    faint[5, 3:6] = 1
    (answer,) = read(tmp_path, [task(brush(soft), brush(faint), choice("Möwe"))])
    assert answer.mask is not None
    assert np.argwhere(answer.mask == 255).tolist() == [[3, 5], [3, 6], [3, 7], [5, 3], [5, 4], [5, 5]]
    (answer,) = read(tmp_path, [task(brush(np.zeros_like(soft)), choice("Möwe"))])
    assert answer.mask is not None  # all rubbed out again
    assert not answer.mask.any()


def test_other_shapes(tmp_path: Path) -> None:
    """A pixel is in where its centre is."""
    y, x = np.mgrid[:10, :20] + 0.5
    cases = [
        (region("rectangle", x=10, y=20, width=30, height=40), (x > 2) & (x < 8) & (y > 2) & (y < 6)),
        (
            region("rectanglelabels", x=50, y=20, width=25, height=40, rotation=90),
            (x > 6) & (x < 10) & (y > 2) & (y < 7),
        ),
        (
            region("ellipselabels", x=50, y=50, radiusX=30.3, radiusY=40.4, rotation=0),
            ((x - 10) / 6.06) ** 2 + ((y - 5) / 4.04) ** 2 < 1,
        ),
        (region("polygonlabels", points=[[0, 0], [52.5, 0], [0, 105]], closed=True), x + y < 10.5),
    ]
    for shape, expected in cases:
        (answer,) = read(tmp_path, [task(shape, choice("Möwe"))])
        assert answer.mask is not None
        np.testing.assert_array_equal(answer.mask > 0, expected, err_msg=shape["type"])


def test_what_else_an_export_holds(tmp_path: Path) -> None:
    """Ratings, comments and per-region choices are passed over, and a person is a number or an address."""
    other = {"from_name": "stars", "type": "rating", "value": {"rating": 4}}
    per_region = region("choices", x=1, y=2, choices=["sure"]) | {"from_name": "confidence"}
    value = task(other, per_region, choice("Möwe"), completed_by={"id": 9, "email": "ada@example.org"})
    (answer,) = read(tmp_path, [value])
    assert answer == Answer("birds/a", "Möwe", None, "9", 4.0, False)
    (answer,) = read(tmp_path, [task(choice("Möwe"), completed_by={"email": "ada@example.org"})])
    assert answer.annotator == "ada@example.org"
    (answer,) = read(tmp_path, [task(choice("Möwe"), completed_by=None, lead_time=None)])
    assert (answer.annotator, answer.seconds) == ("", None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (task(), r"\(id 'birds/a'\): no classes are chosen"),
        (task(choice("Möwe", "Sparrow")), "2 classes are chosen, expected one"),
        (task(choice("sparow")), r"the class 'sparow' is none of the run's; did you mean 'Sparrow'\?"),
        (
            task(choice("Möwe"), brush(np.zeros((10, 20), np.uint8)) | {"original_width": 10}),
            "10x10 .* 20x10",
        ),
        (
            task(choice("Möwe"), brush(np.zeros((5, 20), np.uint8))),
            "400 values, expected 20x10 pixels of four",
        ),
        (task(choice("Möwe"), region("brush", rle=[0, 0, 3, 32, 57, 27, 1])), "code ends too early"),
        (task(choice("Möwe"), brush(np.zeros((10, 20), np.uint8)) | {"image_rotation": 90}), "was turned"),
        (
            task(choice("Möwe"), region("keypointlabels", x=1, y=2, width=1)),
            "'keypointlabels' cannot be read",
        ),
        (task(choice("Möwe"), region("polygon", points=[[0, 0], [1, 1]])), "a damaged outline"),
        (task(choice("Möwe"), region("ellipse", x=1, y=2, radiusX="5")), "of '5', expected -1000 to 1000"),
        (task(choice("Möwe"), lead_time=-1), "a lead_time of -1, expected 0 to"),
    ],
)
def test_what_is_wrong_with_a_task(value: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^export.json, task 7.*{message}"):
        read(tmp_path, [value])


def test_which_annotation_of_a_task(tmp_path: Path) -> None:
    value = task(choice("Möwe"))
    value["annotations"] += [
        copy.deepcopy(value["annotations"][0]) | {"id": 6, "completed_by": 4, "result": []}
    ]
    with pytest.raises(InputError, match=r"task 7 \(id 'birds/a'\), annotation 6: no classes"):
        read(tmp_path, [value])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"export.json: the JSON cannot be read .*line 1 column 1 "),
        (b'[{"id": 1},\n {"id" 2}]', r"export.json: the JSON cannot be read .*line 2 column 8 "),
        (b"id,label\n1,2\n", r"line 1 column 1 "),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\xff\xfe[\x00", "the JSON cannot be read"),
        (b"[" * 200_000, "the JSON cannot be read"),
        (b"[" + b"9" * 5000 + b"]", "the JSON cannot be read"),
        (b'{"images": [], "annotations": []}', "other JSON"),
        (b'[{"id": 1, "image": "x", "label": "Sparrow", "annotator": 1}]', "other JSON"),
    ],
)
def test_other_files(data: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "export.json"
    file.write_bytes(data)
    with pytest.raises(InputError, match=f"{message}.*expected Label Studio's export in the format JSON"):
        label_studio.read_answers(file, question(tmp_path))


def test_tasks_of_another_project(tmp_path: Path) -> None:
    """All of them: one line says so. Some: each is named."""
    other = {"id": 9, "data": {"image": "x"}, "annotations": []}
    with pytest.raises(InputError, match=r"^export.json: an export of another project \(no task has id, run"):
        read(tmp_path, [other] * 30)
    with pytest.raises(InputError, match=r"^export.json, task 9: has no id, run and query of sal-fast"):
        read(tmp_path, [task(choice("Möwe")), other])


def test_a_project_that_holds_several_queries(tmp_path: Path) -> None:
    """The tasks of the run's other queries are passed over; a file of nothing else is refused."""
    before = task(choice("Sparow"), number=4)
    before["data"] |= {"query": 0, "id": "birds/z"}
    (answer,) = read(tmp_path, [before, task(choice("Möwe"))])
    assert (answer.id, answer.label) == ("birds/a", "Möwe")
    with pytest.raises(InputError, match=r"task 4 is of query 0 .*expected query 1"):
        read(tmp_path, [before, before])
    before["data"]["run"] = "other"
    with pytest.raises(InputError, match=r"task 4 is of query 0 of run 'other'"):
        read(tmp_path, [before, task(choice("Möwe"))])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="file not found"):
        label_studio.read_answers(tmp_path / "none.json", question(tmp_path))


@pytest.mark.parametrize("count", [200, pytest.param(3000, marks=pytest.mark.full)])
def test_any_json(count: int, tmp_path: Path) -> None:
    """Values put in the wrong places end in an answer or in InputError."""
    rng = random.Random(0)
    ask = question(tmp_path)
    mask = np.zeros((10, 20), dtype=np.uint8)
    shapes = [brush(mask), region("rectangle", x=1, y=2, width=3, height=4, rotation=5)]
    shapes += [region("polygon", points=[[1, 2], [3, 4], [5, 9]])]
    junk = [
        None,
        True,
        -1,
        0,
        3,
        10**400,
        1e300,
        float("nan"),
        "",
        "x",
        [],
        [[]],
        {},
        {"x": 1},
        [None],
        "brush",
    ]
    refused = 0
    for _ in range(count):
        value: Any = [task(choice("Möwe"), *copy.deepcopy(shapes)), task(choice("Möwe"), completed_by=8)]
        place = value
        while True:
            key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.9:
                place = place[key]
            else:
                break
        place[key] = rng.choice(junk)
        try:
            for answer in read(tmp_path, value, ask):
                assert answer.label in ask.classes or answer.skipped
                assert answer.mask is None or answer.mask.shape == (10, 20)
        except InputError:
            refused += 1
    assert refused > count / 3


@pytest.mark.parametrize("count", [3, 919])
def test_interface(count: int, tmp_path: Path) -> None:
    """Sound XML with every class in it, as the person reads it; the brush only where maps are wanted."""
    odd = ["<b>&\"'", "ünï", "line\nbreak", " spaced "]
    ask = question(tmp_path, odd + [f"class {i}" for i in range(count)])
    root = ElementTree.fromstring(label_studio.interface(ask))
    assert [item.get("value") for item in root.iter("Choice")] == ask.classes
    choices = next(root.iter("Choices"))
    assert (choices.get("required"), choices.get("choice")) == ("true", "single")
    assert len(list(root.iter("BrushLabels"))) == 1
    assert len(list(root.iter("Filter"))) == (count > 8)
    alone = ElementTree.fromstring(label_studio.interface(question(tmp_path, maps=False)))
    assert not list(alone.iter("BrushLabels"))


def test_classes_with_a_dollar(tmp_path: Path) -> None:
    """Label Studio would put a field of the task in its place."""
    ask = question(tmp_path, ["$id", "a $run"])
    root = ElementTree.fromstring(label_studio.interface(ask))
    values = [str(item.get("value")) for item in root.iter("Choice")]
    assert "$id" not in values[0]
    assert [read(tmp_path, [task(choice(value))], ask)[0].label for value in values] == ask.classes


def test_many_pictures_go_to_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = question(tmp_path)
    monkeypatch.setattr(label_studio, "PART", 10)
    files = label_studio.export(ask, tmp_path / "out")
    assert [file.name for file in files] == ["tasks.json", "tasks-2.json"]
    ids = [item["data"]["id"] for file in files for item in json.loads(file.read_text(encoding="utf-8"))]
    assert ids == ask.ids
    assert "tasks.json to tasks-2.json" in (tmp_path / "out" / "README.txt").read_text(encoding="utf-8")
