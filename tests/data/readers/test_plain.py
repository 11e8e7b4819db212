"""Folders of classes: where splits are, which mask is whose, and what is said of files passed over."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sal_fast import seeds
from sal_fast.data import Table, load_table, splits
from sal_fast.data.readers import Options
from sal_fast.errors import InputError


def touch(root: Path, *names: str) -> Path:
    """Small pictures, each of its own grey; a name that ends in / is a folder."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            Image.new("L", (8, 6), number + 1).save(path)
    return root


def rows(table: Table) -> dict[str, tuple[str, str, str | None]]:
    """Class, split and the name of the mask by id."""
    return {
        name: (table.class_name(row), table.split[row], mask.name if (mask := table.masks[row]) else None)
        for row, name in enumerate(table.ids)
    }


def note(table: Table, words: str) -> str:
    (found,) = [one for one in table.notes if words in one]
    return found


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Training", "valid", "testing"), ("training", "Validation", "TEST")],
)
@pytest.mark.parametrize("top", ["images/", ""])
def test_splits_in_folders(train: str, val: str, test: str, top: str, tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{top}{split}/{label}/1.png" for split in (train, val, test) for label in "ab"))
    if top:
        touch(tmp_path, f"masks/{train.lower()}/a/1.png", f"masks/{val}/b/1.png")
    table = load_table(str(root))
    masks = {f"{train}/a/1", f"{val}/b/1"} if top else set()
    assert rows(table) == {
        f"{folder}/{label}/1": (label, split, "1.png" if f"{folder}/{label}/1" in masks else None)
        for folder, split in ((train, "train"), (val, "val"), (test, "test"))
        for label in "ab"
    }
    assert set(splits.assign(table, seeds.stream(0, "split")).split) == {"train", "val", "test"}


def test_train_alone_is_no_split(tmp_path: Path) -> None:
    table = load_table(str(touch(tmp_path, "train/a/1.png", "train/b/1.png")))
    assert set(table.split) == {""}
    assert note(table, "only a training split")


def test_val_is_drawn_from_train_if_only_test_is_given(tmp_path: Path) -> None:
    names = [f"{split}/{label}/{n}.png" for split in ("train", "test") for label in "ab" for n in range(10)]
    table = splits.assign(load_table(str(touch(tmp_path, *names))), seeds.stream(0, "split"))
    assert [len(table.rows(split)) for split in ("train", "val", "test")] == [16, 4, 20]
    assert sorted(table.class_name(row) for row in table.rows("val")) == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["images/train/1.png", "images/val/1.png"],
            r"train, val are names of splits, and images lie directly",
        ),
        (["train/1.png", "test/2.png"], r"test, train are names of splits, and images lie directly in test"),
        (["images/train/a/1.png", "images/b/1.png"], r"train is the name of a split .* b is none; expected"),
        (["images/set/a/1.png"], r"no images in its class folders"),
        (
            ["deep/images/a/1.png", "deep/masks/a/1.png"],
            r"but .*deep looks like folder.*`sal-fast data check .*deep`",
        ),
        (["x/y/1.png"], r"but .*x looks like imagefolder, because its folder y has images; try"),
    ],
)
def test_places_that_are_not_clear(names: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        load_table(str(touch(tmp_path, *names)))


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    table = load_table(str(touch(tmp_path, "images/train/1.png", "images/bus/1.png")))
    assert table.classes == ["bus", "train"]
    assert set(table.split) == {""}


COMPOSED = unicodedata.normalize("NFC", "Bär")


@pytest.mark.parametrize(
    ("image", "mask", "counted"),
    [
        ("1.jpg", "1.png", None),
        ("1.png", "1/a.png", "folders of several annotators' masks, which are averaged"),
        ("IMG.jpg", "img.png", "differ from their images' in case"),
        (
            f"{COMPOSED}.jpg",
            unicodedata.normalize("NFD", COMPOSED) + ".png",
            "differ from their images' in case",
        ),
        ("1.jpg", "1_mask.png", "an ending, such as _mask"),
        ("1.jpg", "1_segmentation.png", "an ending, such as _mask"),
        ("1.jpg", "1_seg.png", "an ending, such as _mask"),
        ("1.jpg", "1-mask.png", "an ending, such as _mask"),
        ("1.jpg", "1.jpg.png", "an ending, such as _mask"),
        ("A.png", "a_Mask.png.png", "an ending, such as _mask"),
        ("1_mask.jpg", "1_mask.png", None),
    ],
)
def test_names_of_masks(image: str, mask: str, counted: str | None, tmp_path: Path) -> None:
    table = load_table(str(touch(tmp_path, f"images/c/{image}", f"masks/c/{mask}", "images/c/2.png")))
    expected = tmp_path / "masks/c" / Path(mask).parts[0]
    assert table.masks[table.ids.index(f"c/{Path(image).stem}")] == expected
    assert table.masks[table.ids.index("c/2")] is None
    if counted is None:
        assert len(table.notes) == 1
    else:
        assert note(table, counted).endswith(f": 1, such as {expected}")


def test_a_name_that_fits_as_it_is_goes_first(tmp_path: Path) -> None:
    names = ["images/c/a.png", "images/c/A.png", "masks/c/a.png", "masks/c/A.png"]
    table = load_table(str(touch(tmp_path, *names)))
    assert rows(table) == {"c/A": ("c", "", "A.png"), "c/a": ("c", "", "a.png")}


@pytest.mark.parametrize(
    "names",
    [
        ["images/c/1.png", "masks/c/1_mask.png", "masks/c/1_seg.png"],
        ["images/c/A.png", "images/c/a.png", "masks/c/a_mask.png"],
        ["c/1.png", "c/1_mask.png", "c/1_seg.png"],
    ],
)
def test_masks_that_could_be_either(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r" and .* fit .*; expected one"):
        load_table(str(touch(tmp_path, *names)))


@pytest.mark.parametrize(
    ("names", "united"),
    [
        (["images/c/1.png", "masks/c/1_0.png", "masks/c/1_1.png"], ["1_0.png", "1_1.png"]),
        (["images/c/1.png", "masks/c/1.png", "masks/c/1_1.png"], ["1.png", "1_1.png"]),
        (["images/c/1.png", "masks/c/1_mask.png", "masks/c/1_mask_1.png"], ["1_mask.png", "1_mask_1.png"]),
        (["images/c/1.png", "masks/c/1_mask0.png", "masks/c/1_mask1.png"], ["1_mask0.png", "1_mask1.png"]),
        (
            ["images/c/1.png", "masks/c/1_0_mask.png", "masks/c/1_1_mask.png"],
            ["1_0_mask.png", "1_1_mask.png"],
        ),
        (["c/1.png", "c/1_mask.png", "c/1_mask_1.png", "c/1_7.png"], ["1_mask.png", "1_mask_1.png"]),
        (["images/c/1.png", "images/c/1_1.png", "masks/c/1_0.png", "masks/c/1_1.png"], ["1_0.png"]),
    ],
)
def test_masks_of_several_objects(names: list[str], united: list[str], tmp_path: Path) -> None:
    table = load_table(str(touch(tmp_path, *names)))
    mask = table.masks[table.ids.index("c/1")]
    assert [path.name for path in (mask if isinstance(mask, tuple) else [mask] if mask else [])] == united
    assert note(table, "of one object each, which are united")


def test_masks_beside_images(tmp_path: Path) -> None:
    names = ["benign/b (1).png", "benign/b (1)_mask.png", "benign/b (2).png", "normal/n.png"]
    table = load_table(str(touch(tmp_path, *names)))
    assert rows(table) == {
        "benign/b (1)": ("benign", "", "b (1)_mask.png"),
        "benign/b (2)": ("benign", "", None),
        "normal/n": ("normal", "", None),
    }


@pytest.mark.parametrize(
    "names",
    [
        ["train/images/1.png", "train/masks/1.png", "val/images/2.png", "val/masks/2.png"],
        ["Images/1.png", "Masks/1.png"],
        ["photos/1.png", "mask/1.png"],
        ["photos/1.png", "gt/1.png"],
        ["cat/1.png", "dog/1.png", "masks/1.png"],
        ["images/cat/1.png", "images/masks/1.png"],
    ],
)
def test_a_folder_of_all_masks_is_no_class(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not clear what their classes are: .* is no class by its name"):
        load_table(str(touch(tmp_path, *names)))


def test_a_folder_of_all_masks_as_arrays_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "photos/1.png", "gt/")
    np.save(tmp_path / "gt/1.npy", np.eye(6))
    with pytest.raises(InputError, match="gt is no class by its name"):
        load_table(str(tmp_path))


def test_a_mask_without_its_image_is_no_image(tmp_path: Path) -> None:
    root = touch(tmp_path, "c/1.png", "c/1_mask.png", "c/2_mask.png", "c/3_seg.png", "c/3_seg_mask.png")
    table = load_table(str(root))
    assert rows(table) == {"c/1": ("c", "", "1_mask.png"), "c/3_seg": ("c", "", "3_seg_mask.png")}
    assert note(table, "named like a mask, and its image is not there").endswith(
        "1, such as " + str(root / "c/2_mask.png")
    )


def test_endings_are_taken_off_one_by_one(tmp_path: Path) -> None:
    names = [
        "images/c/1_seg.png",
        "masks/c/1_seg_mask.png",
        "images/c/2.png",
        "masks/c/2.png",
        "masks/c/2_mask.png",
    ]
    table = load_table(str(touch(tmp_path, *names)))
    assert rows(table) == {"c/1_seg": ("c", "", "1_seg_mask.png"), "c/2": ("c", "", "2.png")}
    assert note(table, "another mask fits its image better").endswith("2_mask.png")


def test_other_files_in_a_folder_of_annotators_are_counted(tmp_path: Path) -> None:
    root = touch(tmp_path, "images/c/1.png", "masks/c/1/a.png", "masks/c/1/deep/b.png")
    (root / "masks/c/1/notes.txt").write_text("by hand")
    (root / "masks/c/1/c.npy").write_bytes(b"")
    table = load_table(str(root))
    assert note(table, "the ending .txt").endswith("masks/c/1/notes.txt")
    assert note(table, "in a place").startswith(
        "not used: in a place where this format keeps neither images nor masks: 2"
    )


def test_classes_that_differ_in_case_alone(tmp_path: Path) -> None:
    table = load_table(str(touch(tmp_path, "images/Cat/1.png", "images/cat/2.png", "masks/cat/2.png")))
    assert note(table, "'Cat' and 'cat' differ in case or Unicode form alone")


def test_every_other_file_is_counted_by_its_reason(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "images/c/1.png", "masks/c/1.png", "masks/c/9.png", "masks/d/1.png", "masks/stray.png",
        "images/c/deep/1.png", "images/.cache/1.png", "images/c/.hidden.png", "images/none/",
        "__MACOSX/1.png", "masks/c/1.jpg",
    )  # fmt: skip
    (root / "images/c/notes.txt").write_text("by hand")
    (root / "images/c/list.XLSX").write_bytes(b"PK")
    (root / "link.gif").symlink_to(root / "gone")
    found = {text.partition(", such as")[0]: text for text in load_table(str(root)).notes[1:]}
    assert set(found) == {
        "class folders without images: 1",
        "not used: no image for this mask: 1",
        "not used: another mask of the same image is preferred: 1",
        "not used: in a place where this format keeps neither images nor masks: 3",
        "not used: hidden: 3",
        "not used: the ending .txt: 1",
        "not used: the ending .XLSX: 1",
        "not used: a broken link: 1",
    }
    assert all(str(root) in text for text in found.values())


def test_folders_in_a_circle(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", "images/c/1.png")
    (root / "images/c/again").symlink_to(root)
    assert len(load_table(str(root))) == 1


def test_class_folders_may_be_links(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.png", "elsewhere/2.png", "set/images/d/1.png")
    (tmp_path / "set/images/c").symlink_to(tmp_path / "elsewhere")
    table = load_table(str(tmp_path / "set"))
    assert table.ids == ["c/1", "c/2", "d/1"]
    assert len(table.notes) == 1


def test_two_formats_at_once(tmp_path: Path) -> None:
    root = touch(tmp_path, "images/c/1.png", "masks/c/1.png")
    (root / "all.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(
        InputError, match=r"looks like folder, because .*; coco, because all.json .* --format folder or"
    ):
        load_table(str(root))
    assert len(load_table(str(root), options=Options("folder"))) == 1
    with pytest.raises(InputError, match="unknown format 'coko'; did you mean 'coco'"):
        load_table(str(root), options=Options("coko"))


def test_a_reader_from_outside(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from sal_fast.data.readers import Found, Look, Reader, Reading\n\n"
        "class Flat(Reader):\n"
        "    def looks(self, path):\n"
        "        return Look('it is flat') if any(path.glob('*-*.png')) else None\n\n"
        "    def read(self, path, options):\n"
        "        reading = Reading()\n"
        "        for one in path.glob('*-*.png'):\n"
        "            reading.found.append(Found(one.stem, one, one.stem.split('-')[0]))\n"
        "        return reading\n"
    )
    root = touch(tmp_path / "set", "cat-1.png", "dog-1.png", "other.png")
    table = load_table(str(root), options=Options(f"{tmp_path}/mine.py:Flat"))
    assert rows(table) == {"cat-1": ("cat", "", None), "dog-1": ("dog", "", None)}
    assert note(table, "not used: in a place").endswith(f"such as {root}/other.png")


def test_the_built_in_folder_has_no_notes_but_one(shared_folder: Path) -> None:
    table = load_table(str(shared_folder))
    assert table.notes == ("read as folder, because it has the folders images/blue and masks",)
    assert np.isin(table.labels, (0, 1, 2)).all()
