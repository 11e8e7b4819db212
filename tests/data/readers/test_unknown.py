"""`data check` of what no reader takes says what it looks like, and names the next step."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import format_writers as write
import numpy as np
import pytest

from sal_fast.cli import main
from sal_fast.data import load_table
from sal_fast.errors import InputError

ORDER = r"move the images to images/<class>/ in it, and their masks to masks/<class>/"


def photos(folder: Path, suffix: str = ".png") -> None:
    for number, pixels in enumerate(write.pictures(3)):
        write.save(folder / f"{number}{suffix}", pixels)


def text(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def yolo(root: Path) -> None:
    for number, split in enumerate(("train", "val")):
        photos(root / f"images/{split}")
        text(root / f"labels/{split}/{number}.txt", "0 0.5 0.5 0.25 0.125\n")


def yolo_by_split(root: Path) -> None:
    for split in ("train", "valid"):
        photos(root / split / "images")
        text(root / split / "labels/0.txt", "3 0.1 0.2 0.3 0.2 0.3 0.4\n")


def arrays(root: Path) -> None:
    root.mkdir()
    np.save(root / "0.npy", np.zeros((4, 4, 3)))


def deep(root: Path) -> None:
    root.mkdir()
    write.write_plain(root / "a/b/c", [write.Shown("cat", "1", "", next(write.pictures(1)), None)] * 2)
    photos(root / "a/b/c/masks/cat")


def images_and_masks(root: Path) -> None:
    photos(root / "images")
    photos(root / "masks")


def masks_alone(root: Path) -> None:
    photos(root / "masks/cat")


def coco_alone(root: Path) -> None:
    root.mkdir()
    write.write_coco(root)
    shutil.rmtree(root / "train2017")


def in_a_folder(root: Path) -> None:
    (root / "inner").mkdir(parents=True)
    write.write_coco(root / "inner")


def kaggle(root: Path) -> None:
    photos(root / "train_images")
    text(root / "sample_submission.csv", "id_code,diagnosis\n9,0\n")
    text(root / "train.csv", "id_code,diagnosis\n0,4\n1,0\n2,4\n")


def a_table(root: Path) -> None:
    photos(root)
    text(root / "labels.csv", "filename,species\n0.png,cat\n")


def voc_without_xml(root: Path) -> None:
    photos(root / "JPEGImages")
    photos(root / "SegmentationClass")


def only(name: str, content: bytes = b"x") -> Callable[[Path], None]:
    return lambda root: text(root / name, content)


ODD = {
    "yolo": (yolo, r"looks like YOLO, because labels/train/0\.txt has .*export the project as COCO"),
    "yolo-by-split": (yolo_by_split, r"looks like YOLO, because train/labels/0\.txt"),
    "arrays": (arrays, r"no images in it, but 1 file such as 0\.npy; arrays are read as masks .*as PNG"),
    "deep": (deep, r"{root}/a/b/c looks like folder, because .*; try `sal-fast data check {root}/a/b/c`"),
    "images": (photos, r"3 pictures, .*classes are: it has no class folders; " + ORDER),
    "images-and-masks": (images_and_masks, r"6 pictures, .*" + ORDER),
    "masks": (masks_alone, r"3 masks, such as {root}/masks/cat/0\.png, but no images; put these in images/"),
    "zip": (only("a.zip", b"PK\x03\x04"), r"1 file such as a\.zip; archives are not read; unpack them"),
    "coco-without-images": (coco_alone, r"none of its 3 images was found below {root} .*; put the image"),
    "coco-in-a-folder": (in_a_folder, r"inner looks like coco, .*; try `sal-fast data check {root}/inner`"),
    "tfrecords": (only("train-00000-of-00001.tfrecord"), r"TFRecord files are not read; write the pictures"),
    "nifti": (only("a.nii.gz", b"\x1f\x8b"), r"NIfTI volumes are not read; write their slices as PNG"),
    "heic": (only("cat/a.heic"), r"1 in HEIC\): convert them to JPEG or PNG"),
    "nothing": (only(".hidden/a.png"), r"no images in it .*; expected a folder images/<class>/"),
    "kaggle": (
        kaggle,
        r"train\.csv is a table of them; write paths into its column 'id_code', such as train_images/0\.png "
        r"in place of 0, and try `sal-fast data check {root}/train\.csv --columns image=id_code,label=diagn",
    ),
    "a-table": (a_table, r"`sal-fast data check {root}/labels\.csv --columns image=filename,label=species`"),
    "voc-without-xml": (voc_without_xml, r"looks like Pascal VOC without the folder Annotations, whose XML"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_folder(name: str, tmp_path: Path) -> None:
    make, said = ODD[name]
    root = tmp_path / "set"
    make(root)
    with pytest.raises(InputError, match=said.replace("{root}", str(root))) as caught:
        load_table(str(root))
    assert str(root) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_command_that_is_named_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_table(tmp_path)
    assert main(["data", "check", str(tmp_path)]) == 2
    _, command, *_ = " ".join(capsys.readouterr().err.split()).split("`")
    path, columns, names = command.removeprefix("sal-fast data check ").split()
    assert main(["data", "check", path, columns, names]) == 2
    assert "labels: 1 images, 1 classes" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.zip", b"PK\x03\x04", r"a\.zip: a ZIP archive; unpack it, and name the folder"),
        ("a.npz", b"PK\x03\x04", r"a\.npz: arrays are read as masks"),
        ("a.tfrecord", b"abc", r"a\.tfrecord: TFRecord files are not read"),
        ("a.png", b"abc", r"a\.png: one picture; name the folder of a data set"),
        ("a.bin", b"", r"a\.bin: no known format; expected one of folder, imagefolder"),
    ],
)
def test_an_odd_file(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    text(tmp_path / name, content)
    with pytest.raises(InputError, match=said):
        load_table(str(tmp_path / name))


def test_class_folders_with_any_other_name_are_taken(tmp_path: Path) -> None:
    for name in ("cat", "train_station", "image_quality_low", "label_printer"):
        photos(tmp_path / name)
    text(tmp_path / "cat/notes.txt", "3 photographs of cats\n")
    table = load_table(str(tmp_path))
    assert (len(table), table.notes[0][:19]) == (12, "read as imagefolder")
    shutil.move(tmp_path / "cat", tmp_path / "masks")
    with pytest.raises(InputError, match=r"masks is no class by its name; .*say --format imagefolder$"):
        load_table(str(tmp_path))
