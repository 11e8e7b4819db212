"""Broken files of each format: the error names the file, what was found in it, and what was expected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import format_writers as write
import numpy as np
import polars as pl
import pytest

from sal_fast.data import load_table
from sal_fast.data.readers import Options, Reading, voc
from sal_fast.errors import InputError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAL_FAST_CACHE", str(tmp_path / "cache"))


def edited(path: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def first(key: str, **values: Any) -> Callable[[Any], None]:
    """Change the first of the entries `key`."""
    return lambda data: data[key][0].update(values)


def refused(root: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_table(str(root), options=Options(name))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda data: data.update(categories=3),
            r"instances_val2017\.json: the annotations cannot be read \(TypeError: .*; expected COCO's JSON",
        ),
        (
            lambda data: data["images"][0].pop("width"),
            r"image 3 cannot be read \(KeyError: 'width'\); expected COCO",
        ),
        (first("annotations", image_id=99), r"annotation 0 has image_id 99 .*expected ids"),
        (first("annotations", category_id=9), r"category_id 9; expected ids"),
        (
            first("annotations", segmentation=[[1, 2, 3, 4]]),
            r"val2017\.json: .*image 3.*polygon with a damaged outline, expected",
        ),
        (first("annotations", segmentation=[[1, 2, 3, 4, 1e30, 6]]), r"polygon with a damaged outline"),
        (
            first("annotations", segmentation={"size": [2, 2], "counts": [4]}),
            r"RLE of \[height, width\] \[2, 2\], expected \[24, 31\]",
        ),
        (
            first("annotations", segmentation={"size": [24, 31], "counts": [4]}),
            r"a run-length code of 4 pixels, expected 744",
        ),
        (
            first("annotations", segmentation={"size": [24, 31], "counts": "04"}),
            r"a run-length code of 4 pixels, expected 744",
        ),
        (
            first("images", file_name="gone.png"),
            r"none of its 1 images was found below .* \(the first is 'gone\.png'\)",
        ),
    ],
)
def test_coco(change: Callable[[Any], None], said: str, tmp_path: Path) -> None:
    write.write_coco(tmp_path)
    edited(tmp_path / "annotations/instances_val2017.json", change)
    refused(tmp_path, "coco", said)


def test_coco_that_is_no_json(tmp_path: Path) -> None:
    write.write_coco(tmp_path)
    path = tmp_path / "annotations/instances_val2017.json"
    path.write_text(path.read_text()[:-40])
    refused(
        tmp_path,
        "coco",
        r"val2017\.json: the JSON cannot be read \(.*line 1 column \d+.*\); expected COCO's JSON",
    )


def test_several_coco_files_of_one_split(tmp_path: Path) -> None:
    write.write_coco(tmp_path)
    path = tmp_path / "annotations/instances_val2017.json"
    (path.parent / "instances_val2018.json").write_bytes(path.read_bytes())
    refused(
        tmp_path, "coco", r"instances_val2017\.json, instances_val2018\.json are all COCO files; expected one"
    )
    assert len(load_table(str(path))) == 1


def test_coco_names_what_it_leaves_out(tmp_path: Path) -> None:
    write.write_coco(tmp_path)
    path = tmp_path / "annotations/instances_train2017.json"
    image = {"id": 50, "file_name": "000000000000.png", "width": 31, "height": 24}
    edited(path, lambda data: data["annotations"].append({"id": 77, "image_id": 0, "category_id": 7}))
    edited(path, lambda data: data["images"].append(image | {"file_name": "gone.png"}))
    table = load_table(str(tmp_path))
    assert len(table) == 4
    assert any(
        "annotations in instances_train2017.json without a segmentation, by id: 1, such as 77" in note
        for note in table.notes
    )
    assert any(
        "instances_train2017.json that are not below" in note and "gone.png" in note for note in table.notes
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda data: data.pop("imageHeight"),
            r"photo0\.json: the annotation cannot be read \(a picture of 31xNone pixels",
        ),
        (
            lambda data: data["shapes"][0].pop("label"),
            r"photo0\.json: .* \(KeyError: 'label'\); expected LabelMe's JSON",
        ),
        (
            lambda data: data["shapes"][0].update(points=[[1, 2]]),
            r"photo0\.json: .*a polygon of 1 points, expected 3",
        ),
        (lambda data: data.update(shapes=3), r"photo0\.json: .* \(TypeError: .*expected LabelMe's JSON"),
        (
            lambda data: data.update(flags={"a": True, "b": True}),
            r"photo0\.json: the annotation has several classes, a and b; expected one",
        ),
    ],
)
def test_labelme(change: Callable[[Any], None], said: str, tmp_path: Path) -> None:
    write.write_labelme(tmp_path)
    edited(tmp_path / "labels/photo0.json", change)
    refused(tmp_path, "labelme", said)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "</annotations>",
            "",
            r"annotations\.xml: the XML cannot be read .*expected CVAT's export 'CVAT for images 1\.1'",
        ),
        ("<image id", "<track/><image id", r"an export of a video, with tracks"),
        (
            'width="31"',
            "",
            r"annotations\.xml: image 'frame_0\.png' cannot be read \(KeyError: 'width'\); expected CVAT",
        ),
        ('points="15.0,2.0;', 'points="15.0,2.0,;', r"image 'frame_0.png'"),
        ('rle="', 'rle="5, ', r"annotations\.xml: .*frame_2.*a run-length code of \d+ pixels, expected \d+"),
        ('left="', 'left="3', r"leaves the image of 31x24"),
        ("frame_", "gone_", r"none of its 5 images was found below .*'gone_0\.png'"),
    ],
)
def test_cvat(before: str, after: str, said: str, tmp_path: Path) -> None:
    write.write_cvat(tmp_path)
    path = tmp_path / "annotations.xml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    refused(tmp_path, "cvat", said)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("</annotation>", "", r"2007_000000\.xml: the XML cannot be read .*expected Pascal VOC's XML"),
        ("<xmin>5</xmin>", "", r"2007_000000\.xml: .*expected Pascal VOC's XML"),
        ("<xmin>5</xmin>", "<xmin>50</xmin>", r"a box from 50, 3 to 17, 20"),
        ("<name>cat</name>", "", r"an object without a name"),
        (
            "<width>31</width>",
            "",
            r"2007_000000\.xml: .*expected Pascal VOC's XML, an annotation with a size",
        ),
    ],
)
def test_voc(before: str, after: str, said: str, tmp_path: Path) -> None:
    write.write_voc(tmp_path)
    path = tmp_path / "Annotations/2007_000000.xml"
    path.write_text(path.read_text().replace(before, after))
    refused(tmp_path, "voc", said)


def test_voc_in_two_lists(tmp_path: Path) -> None:
    write.write_voc(tmp_path)
    (tmp_path / "ImageSets/Main/val.txt").write_text("2007_000002\n")
    refused(tmp_path, "voc", r"val\.txt: '2007_000002' is in the list of test too; expected it in one")


def test_names_in_lists_of_voc(tmp_path: Path) -> None:
    """A name may have spaces; the lists of a class have a flag behind each name."""
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("Foto ü003\n\n2007_000001  1\n2007_000002 -1\n")
    found = voc._splits(tmp_path, Reading())
    assert found == dict.fromkeys(("Foto ü003", "2007_000001", "2007_000002"), "train")


def of_task(number: int, part: str, **values: Any) -> Callable[[Any], None]:
    """Change the first region of a task, or a part of it."""

    def change(tasks: Any) -> None:
        region = tasks[number]["annotations"][0]["result"][0]
        (region[part] if part else region).update(values)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tasks: tasks[0].pop("data"), r"export\.json: other JSON; expected Label Studio's export"),
        (
            lambda tasks: tasks[0]["data"].clear(),
            r"export\.json, task 100: 0 of its data \(\) name a picture, expected one; say which with",
        ),
        (
            of_task(1, "", original_width=None),
            r"task 101 cannot be read \(a picture of Nonex24 pixels, expected two",
        ),
        (of_task(1, "value", x=None), r"export\.json: task 101 .*place or size in percent of None, expected"),
        (of_task(0, "value", rle=[1, 2]), r"task 100 .*the brush's code ends too early"),
        (
            of_task(0, "", type="keypointlabels"),
            r"task 100 cannot be read \(a region of type 'keypointlabels' cannot be read",
        ),
        (
            of_task(5, "value", choices=["a", "b"]),
            r"export\.json: task 105 has several classes, a and b; expected one",
        ),
    ],
)
def test_label_studio(change: Callable[[Any], None], said: str, tmp_path: Path) -> None:
    write.write_label_studio(tmp_path)
    edited(tmp_path / "export.json", change)
    refused(tmp_path, "label-studio", said)


def test_annotators_who_differ(tmp_path: Path) -> None:
    write.write_label_studio(tmp_path)
    edited(tmp_path / "export.json", lambda tasks: tasks[4]["annotations"].pop(1))
    table = load_table(str(tmp_path))
    assert len(table) == 6
    image = tmp_path / "upload/p4.png"
    assert f"not used: its annotators differ in the class: 1, such as {image}" in table.notes


def test_hugging_face(tmp_path: Path) -> None:
    write.write_hf_folder(tmp_path / "a")
    (tmp_path / "a/train/metadata.jsonl").write_text('{"file_name": "0.png", "label"\n')
    refused(tmp_path / "a", "hf-folder", r"train/metadata\.jsonl: cannot be read as a table")
    (tmp_path / "a/train/metadata.jsonl").write_text('{"file_name": "../../0.png", "label": "x"}\n')
    refused(tmp_path / "a", "hf-folder", r"'\.\./\.\./0\.png' leads out of")
    write.write_hf_parquet(tmp_path / "b")
    pl.DataFrame({"image": ["x"]}).write_parquet(tmp_path / "c.parquet")
    refused(tmp_path / "c.parquet", "hf-parquet", r"c\.parquet: expected Parquet with a column of images")
    with pytest.raises(InputError, match=r"no column 'klass' for label; found image, mask, label"):
        load_table(str(tmp_path / "b"), options=Options.of("auto", "label=klass"))
    data = tmp_path / "b/data/test-00000-of-00001.parquet"
    data.write_bytes(data.read_bytes()[:200])
    with pytest.raises(InputError, match=r"test-00000-of-00001\.parquet.*expected"):
        load_table(str(data), options=Options("hf-parquet"))


def test_a_library_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write.write_coco(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    refused(tmp_path, "coco", r'polygons need pycocotools: pip install "sal-fast\[formats\]"')


@pytest.mark.parametrize(
    "name", ["coco", "labelme", "cvat", "voc", "label-studio", "hf-folder", "hf-parquet"]
)
def test_an_empty_folder_by_name(name: str, tmp_path: Path) -> None:
    refused(tmp_path, name, r"expected|no .*(coco|COCO)")


@pytest.mark.parametrize("name", write.FORMATS)
def test_bytes_changed_at_random(name: str, tmp_path: Path) -> None:
    """A damaged file gives a table or an InputError of one line, and no other error."""
    root = tmp_path / "set"
    root.mkdir()
    write.FORMATS[name](root)
    rng = np.random.default_rng(19)
    sources = [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".png"]
    said = []
    for _ in range(25):
        source = sources[rng.integers(len(sources))]
        whole = source.read_bytes()
        at, size = int(rng.integers(len(whole))), int(rng.integers(1, 20))
        noise = [b"", bytes(rng.integers(0, 256, size, dtype=np.uint8)), b"[" * size][rng.integers(3)]
        source.write_bytes(whole[:at] + noise + whole[at + size :])
        try:
            load_table(str(root), options=Options(name))
        except InputError as error:
            said.append(str(error))
        source.write_bytes(whole)
    assert said
    assert [text for text in said if len(text.splitlines()) != 1] == []
