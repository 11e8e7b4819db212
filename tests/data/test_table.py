"""Folders and manifests become tables; what cannot be read is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from sal_fast import seeds
from sal_fast.cli import main
from sal_fast.data import Sample, load_table, make_table, splits
from sal_fast.data.table import UNLABELLED
from sal_fast.errors import InputError


def test_folder(shared_folder: Path) -> None:
    table = load_table(str(shared_folder))
    assert len(table) == 30
    assert table.classes == ["blue", "green", "red"]
    assert table.ids[0] == "blue/000"
    assert table.labels == [0] * 10 + [1] * 10 + [2] * 10
    assert table.masks[29] == shared_folder / "masks" / "red" / "009.png"


def test_folder_is_read_beside_other_csv_files(folder: Path) -> None:
    (folder / "manifest.csv").write_text("nothing,of,use\n")
    assert len(load_table(str(folder))) == 30


def test_folder_without_a_mask(folder: Path) -> None:
    (folder / "masks" / "red" / "003.png").unlink()
    table = load_table(str(folder))
    assert table.masks[table.ids.index("red/003")] is None


def test_same_stem_twice(folder: Path) -> None:
    Image.new("RGB", (40, 40)).save(folder / "images" / "red" / "003.png")
    with pytest.raises(InputError, match="red/003"):
        load_table(str(folder))


def test_names_with_spaces_and_letters(folder: Path) -> None:
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (folder / kind / "red" / f"000.{suffix}").rename(folder / kind / "red" / f"ein Bär & söhne.{suffix}")
    table = load_table(str(folder))
    assert table.masks[table.ids.index("red/ein Bär & söhne")] is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "absent", "data folder not found"),
        (lambda root: root, "expected a folder images"),
        (lambda root: (root / "images" / "a").mkdir(parents=True) or root, "no images in its class folders"),
    ],
)
def test_no_folder(tmp_path: Path, make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_table(str(make(tmp_path)))


def manifest(root: Path, rows: list[tuple[str, ...]], columns: str = "id,image,label,mask,split") -> str:
    path = root / "list.csv"
    path.write_text("\n".join([columns, *(",".join(row) for row in rows)]) + "\n")
    return str(path)


def official_rows(root: Path) -> list[tuple[str, ...]]:
    names = ("train", "train", "val", "test")
    return [
        (f"{label}-{i}", f"images/{label}/{i:03d}.jpg", label, f"masks/{label}/{i:03d}.png", names[i % 4])
        for label in ("blue", "red")
        for i in range(8)
    ]


def test_manifest_keeps_its_splits(folder: Path) -> None:
    table = splits.assign(load_table(manifest(folder, official_rows(folder))), seeds.stream(0, "split"))
    assert table.classes == ["blue", "red"]
    assert [len(table.rows(name)) for name in ("train", "val", "test")] == [8, 4, 4]
    assert table.split[table.ids.index("red-3")] == "test"


def test_parquet_is_the_same(folder: Path) -> None:
    rows = official_rows(folder)
    pl.DataFrame(rows, schema=["id", "image", "label", "mask", "split"], orient="row").write_parquet(
        folder / "list.parquet"
    )
    ours, theirs = load_table(str(folder / "list.parquet")), load_table(manifest(folder, rows))
    assert (ours.ids, ours.labels, ours.split, ours.images) == (
        theirs.ids,
        theirs.labels,
        theirs.split,
        theirs.images,
    )


def test_manifest_without_masks_or_splits(folder: Path) -> None:
    table = load_table(manifest(folder, [row[:3] for row in official_rows(folder)], "id,image,label"))
    assert set(table.masks) == {None}
    assert set(table.split) == {""}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [rows[0], rows[0]], "several images"),
        (lambda rows: [("", *rows[0][1:])], "line 2: 'id' is empty"),
        (lambda rows: [(*rows[0][:4], "trainig")], "split 'trainig'"),
        *(
            (lambda rows, name=name: [(name, *rows[0][1:])], "cannot be used as a file name")
            for name in ("../../up", "./a", "a//b", "/a", "a/../b", "a/", ".", "x" * 300, "a\\b")
        ),
        (lambda rows: [rows[0], (*rows[0][:3], "", rows[0][4])], "several images"),
        (lambda rows: [("a", "../../etc/passwd", *rows[0][2:])], "leads out of"),
        (lambda rows: [], "no rows"),
    ],
)
def test_manifest_refused(folder: Path, change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_table(manifest(folder, change(official_rows(folder))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [(*row[:4], "" if i else row[4]) for i, row in enumerate(rows)], "has no split"),
        (lambda rows: [(*row[:4], "train") for row in rows], "no sample in split 'val'"),
        (
            lambda rows: [
                (*row[:4], "test" if row[2] == "red" and row[4] == "train" else row[4]) for row in rows
            ],
            "class 'red' has no image in split 'train'",
        ),
    ],
)
def test_manifest_splits_refused(folder: Path, change, message: str) -> None:
    table = load_table(manifest(folder, change(official_rows(folder))))
    with pytest.raises(InputError, match=message):
        splits.assign(table, seeds.stream(0, "split"))


def test_manifest_in_a_folder_with_odd_letters(folder: Path) -> None:
    odd = folder.rename(folder.with_name("run[1] *ü"))
    assert len(load_table(manifest(odd, official_rows(odd)))) == 16


def test_manifest_with_a_byte_order_mark(folder: Path) -> None:
    path = Path(manifest(folder, official_rows(folder)))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(load_table(str(path))) == 16


def test_names_that_are_not_utf8(folder: Path) -> None:
    os.rename(os.fsencode(folder / "images/red"), os.fsencode(folder / "images") + b"/r\xe4d")
    with pytest.raises(InputError, match="expected UTF-8"):
        load_table(str(folder))


def test_manifest_columns(folder: Path) -> None:
    with pytest.raises(InputError, match="column 'label' is missing"):
        load_table(manifest(folder, [("a", "b")], "id,image"))
    with pytest.raises(InputError, match="data file not found"):
        load_table(str(folder / "absent.csv"))


def test_split_is_stratified_and_seeded(shared_folder: Path) -> None:
    table = load_table(str(shared_folder))
    first = splits.assign(table, seeds.stream(1, "split"))
    assert first.split == splits.assign(table, seeds.stream(1, "split")).split
    assert first.split != splits.assign(table, seeds.stream(2, "split")).split
    labels = np.array(first.labels)
    for name, size in (("train", 6), ("val", 2), ("test", 2)):
        assert np.bincount(labels[first.rows(name)]).tolist() == [size] * 3


@pytest.mark.parametrize("left", [1, 2])
def test_class_too_small(folder: Path, left: int) -> None:
    for index in range(left, 10):
        (folder / "images" / "red" / f"{index:03d}.jpg").unlink()
    with pytest.raises(InputError, match=f"class 'red' has {left} image"):
        splits.assign(load_table(str(folder)), seeds.stream(0, "split"))


def test_start_set_is_one_per_class_then_random() -> None:
    labels = [0] * 50 + [1] * 30 + [2] * 2 + [3]
    for seed in range(20):
        chosen = splits.start_set(labels, 10, seeds.stream(seed, "start"))
        assert len(set(chosen)) == 10
        assert {labels[row] for row in chosen} == {0, 1, 2, 3}
    few = splits.start_set(labels, 3, seeds.stream(0, "start"))
    assert len({labels[row] for row in few}) == 3
    assert sorted(splits.start_set(labels, 83, seeds.stream(0, "start"))) == list(range(83))
    for seed in range(20):  # images without a class are no class of their own
        mixed = splits.start_set([UNLABELLED] * 5 + labels, 4, seeds.stream(seed, "start"))
        assert {([UNLABELLED] * 5 + labels)[row] for row in mixed} == {0, 1, 2, 3}
    assert len(set(splits.start_set([UNLABELLED] * 5, 3, seeds.stream(0, "start")))) == 3


def test_make_table_takes_samples_and_dictionaries() -> None:
    samples = [Sample("b", Path("b.jpg"), "y", Path("b.png"), "test"), Sample("a", Path("a.jpg"))]
    table = make_table("mine", samples)
    assert (table.ids, table.classes, table.labels) == (["a", "b"], ["y"], [UNLABELLED, 0])
    assert (table.masks, table.split) == ([None, Path("b.png")], ["", "test"])
    fields = [{"id": "a", "image": "a.jpg"}, {**samples[0]._asdict(), "image": "b.jpg", "mask": "b.png"}]
    assert make_table("mine", fields) == table
    with pytest.raises(TypeError, match="lable"):
        make_table("mine", [{"id": "a", "image": "a.jpg", "lable": "y"}])
    with pytest.raises(InputError, match="'a' has the split 'training'; expected train, val, test"):
        make_table("mine", [Sample("a", "a.jpg", split="training")])
    with pytest.raises(InputError, match="mine: there are no samples"):
        make_table("mine", [])


PLUGIN = """
from sal_fast.data import make_table

def mine(root):
    return make_table("mine", [{"id": path.stem, "image": path} for path in root.glob("*.jpg")])

def none(root):
    return str(root)
"""


def test_a_data_set_from_outside(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(PLUGIN)
    table = load_table(f"{plugin}:mine", folder / "images/red")
    assert (table.name, len(table), table.classes) == ("mine", 10, [])
    with pytest.raises(InputError, match=r"it gave a str, expected a sal_fast.data.Table"):
        load_table(f"{plugin}:none")
    with pytest.raises(InputError, match="has no 'other'"):
        load_table(f"{plugin}:other")
    with pytest.raises(InputError, match=r"--root goes with --data .*cub200.*; --data .*pool takes none"):
        load_table(str(folder), tmp_path)
    folder.rename(tmp_path / "of:mine")  # a folder of that name is meant
    monkeypatch.chdir(tmp_path)
    assert len(load_table("of:mine")) == 30


def test_a_mistyped_name_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAL_FAST_CACHE", str(tmp_path))
    for data in ("bultin", "bultin/", "list.csv", "plugin.py:mine", "no.such.module:mine"):
        with pytest.raises(InputError):
            load_table(data)
        assert main(["data", "prepare", "--data", data, "--out", "out"]) == 2
    with pytest.raises(InputError, match="data folder not found: bultin; did you mean 'builtin'"):
        load_table("bultin")
    assert not list(tmp_path.iterdir())
