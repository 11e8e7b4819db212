"""Miniatures in the official formats become tables; what is missing or hostile is refused by name."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from sal_fast import seeds
from sal_fast.data import catalog, check, decode, load_table, splits, store
from sal_fast.data.catalog import archives, cub200, flowers102, food201, ham10000, imagenet_s
from sal_fast.data.reading import StoreOptions
from sal_fast.data.table import SPLITS, Table
from sal_fast.errors import InputError


def picture(path: Path, pixels: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), 90, np.uint8) if pixels is None else pixels).save(path)


def grey(path: Path, value: int = 255) -> None:
    pixels = np.zeros((6, 8), np.uint8)
    pixels[2:4, 2:5] = value
    picture(path, pixels)


def make_cub200(root: Path) -> None:
    """Three species, ten training and five test images each."""
    base = root / "CUB_200_2011"
    species = ["001.Albatross", "002.Auklet", "003.Oriole"]
    lists: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    for number in range(1, 46):
        label = (number - 1) // 15
        name = f"{species[label]}/bird_{number:04d}"
        picture(base / "images" / f"{name}.jpg")
        grey(root / "segmentations" / f"{name}.png")
        lists["images"].append(f"{number} {name}.jpg")
        lists["image_class_labels"].append(f"{number} {label + 1}")
        lists["train_test_split"].append(f"{number} {int(number % 3 > 0)}")
    lists["classes"] = [f"{number} {name}" for number, name in enumerate(species, start=1)]
    for name, lines in lists.items():
        (base / f"{name}.txt").write_text("\n".join(lines) + "\n")


def make_flowers102(root: Path) -> None:
    """Three flowers of four images: one for training, one for validation, two for the test."""
    labels = np.repeat([1, 2, 3], 4).astype(np.uint8)
    blue = np.full((16, 16, 3), (0, 0, 254), np.uint8)
    blue[4:12, 4:12] = (220, 60, 90)
    for number in range(1, 13):
        picture(root / "jpg" / f"image_{number:05d}.jpg")
        if number != 7:
            picture(root / "segmim" / f"segmim_{number:05d}.jpg", blue)
    savemat(root / "imagelabels.mat", {"labels": labels[None]})
    save_sets(root)


def save_sets(root: Path, **changed: list[int]) -> None:
    sets = {"trnid": [1, 5, 9], "valid": [2, 6, 10], "tstid": [3, 4, 7, 8, 11, 12]} | changed
    savemat(root / "setid.mat", {name: np.array([ids], np.uint16) for name, ids in sets.items()})


def make_imagenet_s(root: Path) -> None:
    """Three classes of ten annotated training images and two of validation."""
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[1:4] = (5, 1, 0)
    for part, size in (("train-semi", 10), ("validation", 2)):
        for wnid in ("n01440764", "n01443537", "n01484850"):
            for index in range(size):
                name = f"{wnid}_{index}" if size == 10 else f"ILSVRC2012_val_{wnid}{index}"
                picture(root / f"ImageNetS919/{part}/{wnid}/{name}.JPEG")
                picture(root / f"ImageNetS919/{part}-segmentation/{wnid}/{name}.png", pixels)


def make_ham10000(root: Path) -> None:
    """Three diagnoses, forty images of thirty lesions."""
    lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for number in range(40):
        lesion = number if number < 20 else 20 + number // 2
        diagnosis = ("bkl", "mel", "nv")[lesion % 3]
        picture(root / f"HAM10000_images_part_{1 + number % 2}" / f"ISIC_{number:07d}.jpg")
        if number != 4:
            grey(root / "HAM10000_segmentations_lesion_tschandl" / f"ISIC_{number:07d}_segmentation.png")
        lines.append(f"HAM_{lesion:07d},ISIC_{number:07d},{diagnosis},histo,50.0,male,back")
    (root / "HAM10000_metadata.csv").write_text("\n".join(lines) + "\n")


def make_food201(root: Path) -> None:
    """Three dishes, ten masks for training and four for the test, and images that have none."""
    for dish in ("apple_pie", "pizza", "waffles"):
        for number in range(16):
            picture(root / f"food-101/images/{dish}/{number}.jpg")
            part = "train" if number < 10 else "test"
            if number < 14:
                grey(root / f"food201/segmented/new_masks_{part}/{dish}/{number}.png", 17)


MAKERS: dict[str, Callable[[Path], None]] = {
    "cub200": make_cub200,
    "flowers102": make_flowers102,
    "imagenet-s": make_imagenet_s,
    "ham10000": make_ham10000,
    "food201": make_food201,
}
SIZES = {
    "cub200": (24, 6, 15),
    "flowers102": (3, 3, 6),
    "imagenet-s": (21, 9, 6),
    "ham10000": (20, 8, 12),
    "food201": (21, 9, 12),
}


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalog")
    for key, make in MAKERS.items():
        (folder / key).mkdir()
        make(folder / key)
    return folder


@pytest.fixture
def roots(originals: Path, tmp_path: Path) -> Path:
    """A copy to damage; hard links, so whoever changes a file writes a new one."""
    shutil.copytree(originals, tmp_path / "roots", copy_function=os.link)
    return tmp_path / "roots"


def rewrite(path: Path, change: Callable[[str], str]) -> None:
    text = change(path.read_text())
    path.unlink()
    path.write_text(text)


@pytest.mark.parametrize("key", MAKERS)
def test_miniature(originals: Path, key: str) -> None:
    table = load_table(key, originals / key)
    assert table.name == key
    assert len(table.classes) == 3
    assert tuple(len(table.rows(name)) for name in SPLITS) == SIZES[key]
    assert all(path.is_file() for path in table.images)
    assert table.ids == sorted(table.ids)
    assert splits.assign(table, seeds.stream(5, "split")) is table
    again = load_table(key, str(originals / key))
    assert dataclasses.asdict(again) == dataclasses.asdict(table)
    assert table.with_split(list(table.split)).rule.own is table.rule.own is not None


@pytest.mark.parametrize("key", MAKERS)
def test_masks_of_the_miniatures(originals: Path, key: str) -> None:
    """The rule, applied to what Pillow decodes, finds the shape that was drawn."""
    table = load_table(key, originals / key)
    assert table.rule.own is not None
    sizes = {"cub200": 6, "flowers102": 64, "imagenet-s": 24, "ham10000": 6, "food201": 6}
    for path in filter(None, table.masks):
        found = table.rule.own(np.asarray(Image.open(path)))
        assert found.dtype == bool
        assert found.ndim == 2
        assert abs(int(found.sum()) - sizes[key]) <= (30 if key == "flowers102" else 0)  # JPEG's ringing


def test_cub200_labels_and_classes(originals: Path) -> None:
    table = load_table("cub200", originals / "cub200")
    assert table.classes == ["001.Albatross", "002.Auklet", "003.Oriole"]
    assert table.ids[0] == "001.Albatross/bird_0001"
    assert table.labels == [0] * 15 + [1] * 15 + [2] * 15
    assert {table.ids[row][-4:] for row in table.rows("test")} == {f"{n:04d}" for n in range(3, 46, 3)}
    assert Counter(table.labels[row] for row in table.rows("val")) == {0: 2, 1: 2, 2: 2}


def test_flowers102_splits_and_classes(originals: Path) -> None:
    table = load_table("flowers102", originals / "flowers102")
    assert table.classes == ["001", "002", "003"]
    assert [table.ids[row] for row in table.rows("val")] == ["image_00002", "image_00006", "image_00010"]
    assert [table.ids[row] for row, mask in enumerate(table.masks) if mask is None] == ["image_00007"]


def test_ham10000_keeps_lesions_together(originals: Path) -> None:
    root = originals / "ham10000"
    table = load_table("ham10000", root)
    lesion = {
        line.split(",")[1]: line.split(",")[0]
        for line in (root / "HAM10000_metadata.csv").read_text().splitlines()
    }
    of = {(lesion[sample], split) for sample, split in zip(table.ids, table.split, strict=True)}
    assert len(of) == len({name for name, _ in of}) == 30
    assert table.masks.count(None) == 1


def test_food201_samples_are_the_masks(originals: Path) -> None:
    table = load_table("food201", originals / "food201")
    assert None not in table.masks
    assert "pizza/15" not in table.ids
    assert table.split[table.ids.index("pizza/12")] == "test"


@pytest.mark.parametrize(
    ("key", "inside"),
    [("cub200", "CUB_200_2011"), ("imagenet-s", "ImageNetS919")],
)
def test_root_may_be_a_level_off(roots: Path, key: str, inside: str) -> None:
    expected = load_table(key, roots / key)
    assert load_table(key, roots / key / inside).ids == expected.ids
    outer = roots / "outer"
    outer.mkdir()
    (roots / key).rename(outer / key)
    assert load_table(key, outer).split == expected.split


def test_segmentations_inside_cub(roots: Path) -> None:
    base = roots / "cub200"
    (base / "segmentations").rename(base / "CUB_200_2011" / "segmentations")
    assert None not in load_table("cub200", base / "CUB_200_2011").masks


@pytest.mark.parametrize("name", ["HAM10000_metadata", "HAM10000_metadata.tab"])
def test_other_forms_of_ham10000(roots: Path, name: str) -> None:
    """One folder of images, masks in any folder, metadata under another name, some images twice."""
    root = roots / "ham10000"
    expected = load_table("ham10000", root)
    rewrite(root / "HAM10000_metadata.csv", lambda text: text.replace(",", "\t" if "tab" in name else ","))
    (root / "HAM10000_metadata.csv").rename(root / name)
    (root / "HAM10000_segmentations_lesion_tschandl").rename(root / "masks")
    shutil.copytree(root / "HAM10000_images_part_2", root / "ham10000_images_part_2")
    (root / "HAM10000_images_part_1").rename(root / "images")
    (root / "images" / "._ISIC_0000001.jpg").touch()
    table = load_table("ham10000", root)
    assert (table.ids, table.split, table.labels) == (expected.ids, expected.split, expected.labels)


def test_ham10000_needs_masks(roots: Path) -> None:
    shutil.rmtree(roots / "ham10000" / "HAM10000_segmentations_lesion_tschandl")
    with pytest.raises(InputError, match=r"no file \*_segmentation.png found; expected HAM10000"):
        load_table("ham10000", roots / "ham10000")


CUB = "CUB_200_2011"
IMAGENET = "ImageNetS919/train-semi"


@pytest.mark.parametrize(
    ("key", "gone", "message"),
    [
        ("cub200", f"{CUB}/images.txt", r"images.txt not found; expected CUB_200_2011/ with"),
        ("cub200", f"{CUB}/classes.txt", "list not found: .*classes.txt"),
        ("cub200", f"{CUB}/images/002.Auklet/bird_0017.jpg", "bird_0017.jpg is missing, images.txt names it"),
        ("cub200", "segmentations/002.Auklet/bird_0017.png", "bird_0017.png is missing"),
        ("cub200", f"{CUB}/images/002.Auklet", r"bird_0016.jpg is missing.*\(and 14 more\)"),
        ("cub200", "segmentations", "segmentations not found"),
        ("flowers102", "setid.mat", "setid.mat not found; expected jpg/"),
        ("flowers102", "segmim", "segmim not found"),
        ("flowers102", "jpg/image_00003.jpg", "image_00003.jpg is missing"),
        ("imagenet-s", f"{IMAGENET}/n01443537/n01443537_3.JPEG", "_3.JPEG is missing, .*_3.png names it"),
        ("imagenet-s", f"{IMAGENET}-segmentation/n01443537/n01443537_3.png", "_3.png is missing"),
        ("imagenet-s", f"{IMAGENET}", "train-semi/ not found"),
        ("imagenet-s", "ImageNetS919", "train-semi-segmentation not found"),
        ("ham10000", "HAM10000_metadata.csv", "HAM10000_metadata.csv not found"),
        ("ham10000", "HAM10000_images_part_1/ISIC_0000006.jpg", "ISIC_0000006.jpg is missing"),
        ("food201", "food-101/images/pizza/3.jpg", "pizza/3.jpg is missing, .*pizza/3.png names it"),
        ("food201", "food201/segmented/new_masks_test", "new_masks_test not found"),
        ("food201", "food-101", "images not found"),
    ],
)
def test_missing(roots: Path, key: str, gone: str, message: str) -> None:
    path = roots / key / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=message):
        load_table(key, roots / key)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("image_class_labels", lambda text: text.replace("16 2\n", "16 9\n"), "image 16 has class '9'"),
        ("image_class_labels", lambda text: text.replace("16 2\n", ""), "image 16 is only in images.txt"),
        ("image_class_labels", lambda text: text + "99 2\n", "image 99 is not in images.txt"),
        ("train_test_split", lambda text: text.replace("16 1\n", "16 2\n"), "image 16 has '2'"),
        ("images", lambda text: text.replace("_0017", "_0016"), "'002.Auklet/bird_0016' stands for several"),
        ("images", lambda text: text + text.splitlines()[0], "line 46: number 1 stands twice"),
        ("images", lambda text: "bird\n" + text, "line 1: 'bird'; expected a number and a value"),
        ("images", lambda text: text.replace("3 001.Albatross/", "3 ../../up/"), "cannot be used as a file"),
        ("images", lambda text: "", "no lines"),
    ],
)
def test_bad_lists_of_cub200(roots: Path, name: str, change: Callable[[str], str], message: str) -> None:
    rewrite(roots / "cub200" / CUB / f"{name}.txt", change)
    with pytest.raises(InputError, match=message):
        load_table("cub200", roots / "cub200")


def test_a_list_that_is_no_text(roots: Path) -> None:
    path = roots / "cub200" / CUB / "classes.txt"
    path.unlink()
    path.write_bytes(b"1 \xff\xfe\n")
    with pytest.raises(InputError, match="not a text file"):
        load_table("cub200", roots / "cub200")


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"trnid": [1, 5, 99]}, "image 99 is in trnid; imagelabels.mat has 1 to 12"),
        ({"trnid": [0, 5, 9]}, "image 0 is in trnid"),
        ({"valid": [1, 2, 6, 10]}, "image 1 is in trnid and in valid"),
        ({"valid": [2, 6]}, "image 10 is in none of trnid, valid, tstid"),
    ],
)
def test_bad_sets_of_flowers102(roots: Path, sets: dict[str, list[int]], message: str) -> None:
    (roots / "flowers102" / "setid.mat").unlink()
    save_sets(roots / "flowers102", **sets)
    with pytest.raises(InputError, match=message):
        load_table("flowers102", roots / "flowers102")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"labels": [[1] * 11 + [0]]}, "image 12 has label 0; expected 1 to 102"),
        ({"labels": [[103] * 12]}, "image 1 has label 103"),
        ({"labels": [[1.5] * 12]}, "'labels' is no list of whole numbers"),
        ({"labels": [[float("nan")] * 12]}, "'labels' is no list of whole numbers"),
        ({"labels": "roses"}, "'labels' is no list of whole numbers"),
        ({"labels": {"rose": 1}}, "'labels' is no list of whole numbers"),
        ({"classes": [[1] * 12]}, "holds no 'labels'"),
    ],
)
def test_bad_labels_of_flowers102(roots: Path, labels: dict[str, object], message: str) -> None:
    path = roots / "flowers102" / "imagelabels.mat"
    path.unlink()
    savemat(path, labels)
    with pytest.raises(InputError, match=message):
        load_table("flowers102", roots / "flowers102")


@pytest.mark.parametrize("kept", [0, 40, 128, 150, 190])
def test_truncated_mat(roots: Path, kept: int) -> None:
    path = roots / "flowers102" / "imagelabels.mat"
    data = path.read_bytes()
    assert kept < len(data)
    path.unlink()
    path.write_bytes(data[:kept])
    with pytest.raises(InputError, match=r"imagelabels.mat: (cannot be read as a MATLAB file|holds no)"):
        load_table("flowers102", roots / "flowers102")


@pytest.mark.parametrize("hidden", [False, True])
def test_a_type_that_is_not_there(roots: Path, hidden: bool) -> None:
    """The byte that crashes scipy's reader (1.17), alone, and behind a length that throws a check off."""
    path = roots / "flowers102" / "imagelabels.mat"
    data = bytearray(path.read_bytes())
    assert data[176:182] == b"labels"
    assert data[184] == 2  # the type of the numbers that follow: uint8
    data[184] = 41
    data[138] = 31 if hidden else 0
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read as a MATLAB file"):
        load_table("flowers102", roots / "flowers102")


def test_compressed_mat(roots: Path) -> None:
    path = roots / "flowers102" / "imagelabels.mat"
    path.unlink()
    labels = np.repeat([1, 2, 3], 4).astype(np.float64)[None]
    savemat(path, {"note": "a note", "labels": labels}, do_compression=True)
    assert load_table("flowers102", roots / "flowers102").classes == ["001", "002", "003"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("mel", "melanoma"), "line 3: dx 'melanoma'; expected one of akiec"),
        (lambda text: text.replace("HAM_0000003", ""), "line 5: 'lesion_id' is empty"),
        (lambda text: text.replace("lesion_id", "lesion"), "column 'lesion_id' is missing"),
        (lambda text: text.replace("ISIC_0000003", "ISIC_0000002"), "several images"),
        (lambda text: text.splitlines()[0], "no rows"),
        (lambda text: "", "cannot be read as a table"),
    ],
)
def test_bad_metadata_of_ham10000(roots: Path, change: Callable[[str], str], message: str) -> None:
    rewrite(roots / "ham10000" / "HAM10000_metadata.csv", change)
    with pytest.raises(InputError, match=message):
        load_table("ham10000", roots / "ham10000")


def test_duplicates_across_folders(roots: Path) -> None:
    picture(roots / "imagenet-s" / f"{IMAGENET}/n01443537/n01443537_3.png")
    with pytest.raises(InputError, match="are one sample"):
        load_table("imagenet-s", roots / "imagenet-s")
    masks = roots / "food201/food201/segmented"
    shutil.copy(masks / "new_masks_train/pizza/3.png", masks / "new_masks_test/pizza/3.png")
    with pytest.raises(InputError, match="'pizza/3' stands for several images"):
        load_table("food201", roots / "food201")


def test_root_is_asked_for(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"--data cub200 needs --root DIR, .*CUB_200_2011/ with images.txt"):
        load_table("cub200", None)
    with pytest.raises(InputError, match="no such folder; expected jpg/"):
        load_table("flowers102", tmp_path / "absent")
    with pytest.raises(InputError, match="--data builtin takes no --root"):
        load_table("builtin", tmp_path)
    monkeypatch.chdir(tmp_path)
    folder.rename("cub200")
    with pytest.raises(InputError, match="needs --root"):
        load_table("cub200")
    assert len(load_table("./cub200")) == 30


def test_compare(originals: Path) -> None:
    assert catalog.compare("ham10000", load_table("ham10000", originals / "ham10000")) == [
        "train: 20 here, 4,893 in Table 1",
        "val: 8 here, 2,092 in Table 1",
        "test: 12 here, 3,030 in Table 1",
        "classes: 3 here, 7 in Table 1",
        "no mask: 1 of 40 images",
    ]
    counts = catalog.ENTRIES["flowers102"].counts
    names = [name for name in SPLITS for _ in range(counts[name])]
    whole = Table(
        name="flowers102",
        classes=[f"{label:03d}" for label in range(1, 103)],
        ids=[str(number) for number in range(len(names))],
        images=[Path("image")] * len(names),
        labels=[0] * len(names),
        masks=[Path("mask")] * len(names),
        split=names,
    )
    assert catalog.compare("flowers102", whole) == []


# The mask rules by themselves.


def test_rule_of_cub200() -> None:
    votes = np.array([[0, 51, 127, 128, 204, 255]], np.uint8)
    expected = [[False, False, False, True, True, True]]
    assert cub200.foreground(votes).tolist() == expected
    opaque = np.full_like(votes, 255)
    assert cub200.foreground(np.stack([votes, opaque], axis=-1)).tolist() == expected
    assert cub200.foreground(np.stack([votes] * 3, axis=-1)).tolist() == expected
    assert cub200.foreground(np.stack([votes] * 3 + [opaque], axis=-1)).tolist() == expected


@pytest.mark.parametrize(
    "colour", [(200, 30, 40), (230, 210, 40), (235, 235, 235), (70, 70, 190), (15, 15, 15)]
)
@pytest.mark.parametrize("quality", [75, 95])
def test_rule_of_flowers102_survives_jpeg(colour: tuple[int, int, int], quality: int) -> None:
    rows, columns = np.mgrid[:120, :160]
    drawn = (rows - 60) ** 2 + (columns - 80) ** 2 < 45**2
    noise = np.random.default_rng(0).normal(0, 15, (120, 160, 3))
    pixels = np.where(drawn[..., None], np.clip(colour + noise, 0, 255), (0, 0, 254)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    found = flowers102.foreground(np.asarray(Image.open(file)))
    assert 2 * (found & drawn).sum() / (found.sum() + drawn.sum()) > 0.95
    assert not found[:4].any()  # no ground is taken for a flower away from its edge


def test_rule_of_imagenet_s() -> None:
    ids = np.array([[0, 1, 255, 256, 919, 1000]])
    pixels = np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1).astype(np.uint8)
    assert imagenet_s.foreground(pixels).tolist() == [
        [False, True, True, True, True, None]
    ]  # 1000 is neither
    assert imagenet_s.foreground(pixels[..., 0]).tolist() == [[False, True, True, False, True, True]]


@pytest.mark.parametrize("rule", [ham10000.foreground, food201.foreground])
def test_rules_of_ham10000_and_food201(rule: Callable[[np.ndarray], np.ndarray]) -> None:
    ids = np.array([[0, 1, 201, 255]], np.uint8)
    assert rule(ids).tolist() == [[False, True, True, True]]
    assert rule(np.stack([ids, ids, ids], axis=-1)).tolist() == [[False, True, True, True]]
    palette = Image.fromarray(ids).convert("P")
    palette.putdata(ids.ravel().tolist())
    palette.putpalette([9] * 768)
    assert rule(np.asarray(palette)).tolist() == [[False, True, True, True]]
    assert rule(ids > 100).tolist() == [[False, False, True, True]]  # a file of one bit a pixel


# The polarity of masks, from the file to the store.

FRAME = 32
PARTS = np.repeat(np.arange(8), 4)  # eight stripes of four columns
INSIDE = (np.arange(FRAME) >= 16)[:, None]  # the lower half: what a data set calls foreground is drawn there


def stripes(values: list[int]) -> np.ndarray:
    """A value for each stripe, in the lower half; 0 in the upper one. int64 [32, 32]."""
    return np.where(INSIDE, np.array(values)[PARTS], 0)


def votes() -> tuple[Image.Image, np.ndarray]:
    """CUB-200: five annotators, of whom none to all outlined a stripe; at least three are more than half."""
    count = stripes([0, 1, 2, 3, 4, 5, 5, 0])
    return Image.fromarray((count * 51).astype(np.uint8)), count >= 3


def votes_with_alpha() -> tuple[Image.Image, np.ndarray]:
    """The same with an opaque channel of alpha, as some files of CUB-200 have it."""
    image, expected = votes()
    image.putalpha(255)
    return image, expected


def on_blue() -> tuple[Image.Image, np.ndarray]:
    """Flowers102: the flower in its colours, deep blue among them, on (0, 0, 254)."""
    pixels = np.full((FRAME, FRAME, 3), (0, 0, 254), np.uint8)
    pixels[16:, :16] = (230, 210, 40)
    pixels[16:, 16:] = (40, 20, 150)
    return Image.fromarray(pixels), np.broadcast_to(INSIDE, (FRAME, FRAME))


def class_ids() -> tuple[Image.Image, np.ndarray]:
    """ImageNet-S: R + 256 * G is the class; 0 is another category, and 1000 is to be ignored."""
    ids = stripes([0, 1, 255, 256, 512, 919, 1000, 1000])
    pixels = np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8)), (ids > 0) & (ids < 1000)


def lesion() -> tuple[Image.Image, np.ndarray]:
    """HAM10000: 255 is the lesion, and 0 is skin."""
    values = stripes([0, 255, 255, 255, 255, 255, 255, 0])
    return Image.fromarray(values.astype(np.uint8)), values == 255


def foods() -> tuple[Image.Image, np.ndarray]:
    """Food201: the id of a food, 1 to 201; 0 is the table."""
    values = stripes([0, 0, 1, 2, 17, 128, 201, 201])
    return Image.fromarray(values.astype(np.uint8)), values > 0


def redrawn(root: Path, key: str, image: Image.Image) -> Table:
    """The miniature, with photographs of 32 x 32 pixels, each with this mask.

    A JPEG is flat in each of its blocks, so that compression changes nothing but some levels.
    """
    table = load_table(key, root)
    for number, path in enumerate(table.images):
        path.unlink()
        noise = np.random.default_rng(number).integers(0, 256, (FRAME, FRAME, 3))
        picture(path, noise.astype(np.uint8))
    for path in table.masks:
        if isinstance(path, Path):
            path.unlink()
            image.save(path, **({"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}))
    return load_table(key, root)


POLARITY = [
    ("cub200", votes), ("cub200", votes_with_alpha), ("flowers102", on_blue), ("imagenet-s", class_ids),
    ("ham10000", lesion), ("food201", foods),
]  # fmt: skip


@pytest.mark.parametrize("decoder", ["pillow", "torch", "dali"])
@pytest.mark.parametrize(("key", "draw"), POLARITY)
def test_polarity(
    roots: Path, key: str, draw: Callable[[], tuple[Image.Image, np.ndarray]], decoder: Any
) -> None:
    """What a run trains on is what the data set's documentation calls foreground, in each pixel."""
    if decoder == "dali":
        pytest.importorskip("nvidia.dali")
    image, expected = draw()
    table = redrawn(roots / key, key, image)
    options = StoreOptions(FRAME, 0, decode.choose(decoder, torch.device("cpu")))
    rows = [row for row, mask in enumerate(table.masks) if mask is not None]
    made = store.build(table, options).masks.unpack(torch.tensor(rows)).numpy()
    assert len(made) == len(rows) > 10
    assert (made == np.where(expected, 255, 0)).all()


@pytest.mark.parametrize(("key", "draw"), POLARITY)
def test_what_check_says_of_the_masks(
    roots: Path, key: str, draw: Callable[[], tuple[Image.Image, np.ndarray]]
) -> None:
    """The rule is the data set's own, so that values are no matter: coverage and border are said."""
    image, expected = draw()
    table = redrawn(roots / key, key, image)
    found = check.look(key, str(roots / key))
    assert found.problems == []
    count = len(table) - table.masks.count(None)
    edge = np.concatenate([expected[0], expected[-1], expected[1:-1, 0], expected[1:-1, -1]])
    share = (np.asarray(image) == (1000 % 256, 1000 // 256, 0)).all(-1).mean() if key == "imagenet-s" else 0
    ignored = f"; {share:.1%} of the pixels are ignored, in {count} masks" if share else ""
    said, _, example = found.notes[0].partition(", for example ")
    assert said == (
        f"masks: {count} binary; foreground covers {expected.mean():.0%} of the picture and "
        f"{edge.mean():.0%} of its border (medians){ignored}"
    )
    assert bool(example) == bool(ignored)
    assert found.notes[1:] == catalog.compare(key, table)


def test_what_check_says_of_a_wide_plate_and_of_ignored_pixels(roots: Path) -> None:
    """An official rule is never to be turned round; a mask of nothing but ignored pixels is empty."""
    values = np.full((FRAME, FRAME), 17, np.uint8)
    values[:4, :4] = 0
    food, imagenet = str(roots / "food201"), str(roots / "imagenet-s")
    redrawn(roots / "food201", "food201", Image.fromarray(values))
    (inverted,) = [note for note in check.look("food201", food).notes if "border is" in note]
    assert "look at them with --preview" in inverted
    assert "--foreground" not in inverted
    table = redrawn(roots / "imagenet-s", "imagenet-s", class_ids()[0])
    mask = table.masks[0]
    assert isinstance(mask, Path)
    Image.new("RGB", (FRAME, FRAME), (1000 % 256, 1000 // 256, 0)).save(mask)
    (empty,) = [note for note in check.look("imagenet-s", imagenet).notes if "empty," in note]
    assert str(mask) in empty


# The splits of the paper's sizes, without files.


def many(classes: list[int], cycle: list[int]) -> tuple[list[int], list[str]]:
    """Labels and groups of the sizes in `cycle`, over and over."""
    labels, groups = [], []
    for label, count in enumerate(classes):
        left, turn = count, 0
        while left:
            size = min(cycle[turn % len(cycle)], left)
            labels += [label] * size
            groups += [f"{label}-{turn}"] * size
            left, turn = left - size, turn + 1
    return labels, groups


HAM = [327, 514, 1099, 115, 1113, 6705, 142]


def test_groups_give_the_paper_s_totals() -> None:
    labels, groups = many(HAM, [1, 1, 1, 2, 1, 1, 3, 1, 6])
    assert len(labels) == 10_015
    sizes = [4893, 2092, 3030]
    for seed in range(3):
        split = splits.by_group(labels, groups, sizes, seeds.stream(seed, "catalog-ham10000"))
        assert [split.count(name) for name in SPLITS] == sizes
        assert len(set(zip(groups, split, strict=True))) == len(set(groups))
        for label, count in enumerate(HAM):
            own = Counter(name for name, at in zip(split, labels, strict=True) if at == label)
            for name, size in zip(SPLITS, sizes, strict=True):
                assert abs(own[name] - count * size / 10_015) <= 1
    assert split != splits.by_group(labels, groups, sizes, seeds.stream(0, "catalog-ham10000"))


def test_groups_of_several_are_in_every_split() -> None:
    labels, groups = many(HAM, [1, 2, 1, 4])
    split = splits.by_group(labels, groups, [4893, 2092, 3030], seeds.stream(0, "catalog-ham10000"))
    several = {group for group, count in Counter(groups).items() if count > 1}
    placed = Counter(name for group, name in set(zip(groups, split, strict=True)) if group in several)
    for name, share in zip(SPLITS, (0.49, 0.21, 0.30), strict=True):
        assert abs(placed[name] / len(several) - share) < 0.03


@pytest.mark.parametrize("seed", range(20))
def test_groups_of_any_shape_stay_whole(seed: int) -> None:
    """A group is never cut, however little room its class has."""
    rng = np.random.default_rng(seed)
    cycle = rng.integers(1, 9, 12).tolist() + [1] * 24
    labels, groups = many(rng.integers(1, 60, 5).tolist(), cycle)
    split = splits.by_group(labels, groups, [5, 2, 3], rng)
    assert len(set(zip(groups, split, strict=True))) == len(set(groups))
    assert set(split) <= set(SPLITS)
    labels, groups = many([7, 3], [5])
    split = splits.by_group(labels, groups, [5, 2, 3], rng)
    assert len(set(zip(groups, split, strict=True))) == 3


@pytest.mark.parametrize(
    ("sizes", "share", "train", "val"),
    [([30] * 194 + [29] * 6, 0.2, 4794, 1200), ([10] * 919, 0.3, 6433, 2757)],
)
def test_val_has_the_paper_s_totals(sizes: list[int], share: float, train: int, val: int) -> None:
    """CUB-200: 5,994 official training images; ImageNet-S: ten of each class."""
    labels = np.repeat(np.arange(len(sizes)), sizes).tolist()
    count = len(labels)
    table = Table("t", [], [str(n) for n in range(count)], [Path()] * count, labels, [None] * count)
    table = splits.with_val(table.with_split(["train"] * count), share, seeds.stream(0, "catalog-cub200"))
    assert (len(table.rows("train")), len(table.rows("val"))) == (train, val)


# Archives.


def pack(path: Path, folder: Path, names: list[str]) -> None:
    """The folders `names` of `folder`, or what is in it when there are none."""
    files = [file for name in names or ["."] for file in sorted((folder / name).rglob("*")) if file.is_file()]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(folder))
            archive.writestr("__MACOSX/._x", b"x")
    else:
        with tarfile.open(path, "w:gz") as archive:
            for file in files:
                archive.add(file, "./" + str(file.relative_to(folder)))


def contents(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.name != ".lock")


def test_official_archives_are_unpacked(originals: Path, tmp_path: Path) -> None:
    source = originals / "cub200"
    pack(tmp_path / "CUB_200_2011.tgz", source, [CUB])
    pack(tmp_path / "segmentations.tgz", source, ["segmentations"])
    table = load_table("cub200", tmp_path)
    assert table.split == load_table("cub200", source).split
    assert contents(tmp_path) == sorted([*contents(source), "CUB_200_2011.tgz", "segmentations.tgz"])
    assert stat.S_IMODE((tmp_path / CUB).stat().st_mode) == stat.S_IMODE((source / CUB).stat().st_mode)
    assert archives.unpack(tmp_path, catalog.ENTRIES["cub200"].archives) is False


def test_archives_in_an_archive(originals: Path, tmp_path: Path) -> None:
    """HAM10000 as its server packs it: one archive of archives, images at their top level."""
    source, inner, root = originals / "ham10000", tmp_path / "inner", tmp_path / "root"
    inner.mkdir()
    root.mkdir()
    for part in ("HAM10000_images_part_1", "HAM10000_images_part_2"):
        pack(inner / f"{part}.zip", source / part, [])
    masks = "HAM10000_segmentations_lesion_tschandl"
    pack(inner / f"{masks}.zip", source, [masks])
    shutil.copy(source / "HAM10000_metadata.csv", inner)
    pack(root / "dataverse_files.zip", inner, [])
    table = load_table("ham10000", root)
    assert table.split == load_table("ham10000", source).split
    assert table.images[0] == root / "dataverse_files/HAM10000_images_part_1/ISIC_0000000.jpg"
    assert not (root / "dataverse_files" / "__MACOSX").exists()


def test_archive_joins_a_folder_that_is_there(roots: Path) -> None:
    """ImageNet-S: the images are there, the archive brings the segmentations into the same folder."""
    root = roots / "imagenet-s"
    expected = load_table("imagenet-s", root)
    parts = [f"ImageNetS919/{part}-segmentation" for part in ("train-semi", "validation")]
    (name,) = catalog.ENTRIES["imagenet-s"].archives
    pack(root / name, root, parts)
    whole = contents(root)
    shutil.rmtree(root / parts[1])
    (root / parts[0] / "n01440764" / "n01440764_0.png").unlink()
    assert load_table("imagenet-s", root).split == expected.split
    assert contents(root) == whole


def test_a_killed_unpacking_is_taken_up(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tmp_path / "segmentations.tgz", originals / "cub200", ["segmentations"])
    (tmp_path / "segmentations").mkdir()
    renamed = []

    def rename(source: Path, target: Path) -> None:
        if len(renamed) == 1:
            raise KeyboardInterrupt
        renamed.append(target)
        os.replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(archives.os, "rename", rename)
        patch.setattr(archives.shutil, "rmtree", lambda *_, **__: None)  # a kill cleans nothing up
        with pytest.raises(KeyboardInterrupt):
            archives.unpack(tmp_path, ["segmentations.tgz"])
    assert len(list(tmp_path.glob(".unpacking*"))) == 1
    assert archives.unpack(tmp_path, ["segmentations.tgz"]) is True
    assert contents(tmp_path / "segmentations") == contents(originals / "cub200" / "segmentations")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == [
        "segmentations",
        "segmentations.tgz",
    ]


def tar_member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def hostile_tar(path: Path, info: tarfile.TarInfo) -> None:
    """A harmless file, then the member; its declared bytes are not there."""
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tar_member("segmentations/a.png", size=1), io.BytesIO(b"a"))
        archive.addfile(info)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (tar_member("../out.png"), "'../out.png' leads out"),
        (tar_member("segmentations/../../out.png"), "leads out"),
        (tar_member("/tmp/out.png"), "leads out"),
        (tar_member("//tmp/out.png"), "leads out"),
        (tar_member("a\\..\\out.png"), "leads out"),
        (tar_member("segmentations/b", type=tarfile.SYMTYPE, linkname="../../out"), "is a link"),
        (tar_member("segmentations/b", type=tarfile.LNKTYPE, linkname="../../out"), "is a link"),
        (tar_member("segmentations/b", type=tarfile.FIFOTYPE), "is a special file"),
        (tar_member("segmentations/b", type=tarfile.CHRTYPE), "is a special file"),
        (tar_member("segmentations/b.png", size=10**17), "take 100,000,000.0 GB, .* GB are free"),
        (tar_member("segmentations/b.png", size=10**6), "damaged or incomplete archive"),
    ],
)
def test_hostile_tar(tmp_path: Path, info: tarfile.TarInfo, message: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    hostile_tar(root / "segmentations.tgz", info)
    with pytest.raises(InputError, match=f"segmentations.tgz: .*{message}"):
        load_table("cub200", root)
    assert contents(tmp_path) == ["root", "root/segmentations.tgz"]


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("../out.png", stat.S_IFREG, "'../out.png' leads out"),
        ("/tmp/out.png", stat.S_IFREG, "leads out"),
        ("a/../../out.png", stat.S_IFREG, "leads out"),
        ("a/link", stat.S_IFLNK, "is a link"),
        ("a/pipe", stat.S_IFIFO, "is a special file"),
    ],
)
def test_hostile_zip(tmp_path: Path, name: str, mode: int, message: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with zipfile.ZipFile(root / "HAM10000_images_part_1.zip", "w") as archive:
        archive.writestr("a/good.jpg", b"good")
        info = zipfile.ZipInfo(name)
        info.external_attr = (mode | 0o644) << 16
        archive.writestr(info, b"../../out")
    with pytest.raises(InputError, match=f"part_1.zip: member .*{message}"):
        load_table("ham10000", root)
    assert contents(tmp_path) == ["root", "root/HAM10000_images_part_1.zip"]


def test_bomb_in_a_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    path = tmp_path / "HAM10000_images_part_1.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(900_000))
        archive.writestr("b.jpg", bytes(900_000))
    assert path.stat().st_size < 10_000
    with pytest.raises(InputError, match=r"with 'b.jpg' its files take 0.0 GB, 0.0 GB are free"):
        archives.unpack(tmp_path, [path.name])
    assert contents(tmp_path) == [path.name]


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    """More bytes than declared are not written."""
    path = tmp_path / "HAM10000_images_part_1.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(900_000))
    honest, lie = (900_000).to_bytes(4, "little"), (9).to_bytes(4, "little")
    assert path.read_bytes().count(honest) == 2
    path.write_bytes(path.read_bytes().replace(honest, lie))
    with pytest.raises(InputError, match="damaged or incomplete archive"):
        archives.unpack(tmp_path, [path.name])
    assert contents(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["segmentations.tgz", "HAM10000_images_part_1.zip"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_damaged_archive(originals: Path, tmp_path: Path, name: str, share: float) -> None:
    pack(tmp_path / name, originals / "cub200", ["segmentations"])
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=f"{name}: damaged or incomplete archive"):
        archives.unpack(tmp_path, [name])
    assert contents(tmp_path) == [name]


def test_what_is_there_is_not_written_over(originals: Path, tmp_path: Path) -> None:
    pack(tmp_path / "segmentations.tgz", originals / "cub200", ["segmentations"])
    archives.unpack(tmp_path, ["segmentations.tgz"])
    half = tmp_path / "segmentations/002.Auklet/bird_0017.png"
    half.write_bytes(half.read_bytes()[:20])
    with pytest.raises(InputError, match=r"bird_0017.png is there with 20 bytes, .*remove it"):
        archives.unpack(tmp_path, ["segmentations.tgz"])
    half.unlink()
    half.mkdir()
    with pytest.raises(InputError, match="a file stands where a folder should"):
        archives.unpack(tmp_path, ["segmentations.tgz"])
    half.rmdir()
    assert archives.unpack(tmp_path, ["segmentations.tgz"]) is True
    assert half.is_file()
