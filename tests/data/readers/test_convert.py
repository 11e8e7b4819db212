"""`data convert` writes the plain folder of any format; `data check` of an unknown one tells the way."""

from __future__ import annotations

from pathlib import Path

import format_writers as write
import numpy as np
import pytest
from PIL import Image

from sal_fast.cli import main
from sal_fast.data import Sample, convert, load_table, make_table
from sal_fast.errors import InputError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAL_FAST_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", write.FORMATS)
def test_convert(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "set", tmp_path / "out"
    root.mkdir()
    write.FORMATS[name](root)
    table = load_table(str(root))
    assert main(["data", "convert", str(root), str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    masks = sum(mask is not None for mask in table.masks)
    assert f"{len(table)} images, {masks} masks" in said
    assert f"note: {table.notes[0]}" in said
    source = out / "manifest.csv" if any(table.split) else out
    assert f"`sal-fast data check {source}`" in said
    made = load_table(str(source))
    assert write.content(made) == write.content(table)
    if any(table.split):
        assert made.ids == table.ids
        by_folder = load_table(str(out))
        assert sorted(map(str, by_folder.images)) == sorted(map(str, made.images))
        assert sorted(map(str, by_folder.masks)) == sorted(map(str, made.masks))


def test_classes_pools_and_names_that_meet(tmp_path: Path) -> None:
    pictures = [write.save(tmp_path / f"{number}.png", one) for number, one in enumerate(write.pictures(4))]
    samples = [
        Sample("a/b", pictures[0], "cat"),
        Sample("a_b", pictures[1], "cat"),
        Sample("cat/x", pictures[2], "cat"),
        Sample("pool/y", pictures[3]),
    ]
    out = convert.convert(make_table("mine", samples), tmp_path / "out")
    assert out == tmp_path / "out"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) == [
        "images/cat/a_b.png", "images/cat/a_b_.png", "images/cat/x.png", "pool/y.png",
    ]  # fmt: skip
    with pytest.raises(InputError, match="out is there and holds something; name a new folder"):
        convert.convert(make_table("mine", samples), out)


def test_a_rule_of_the_data_set_is_applied(tmp_path: Path) -> None:
    image = write.save(tmp_path / "1.png", next(write.pictures(1)))
    values = np.arange(write.HEIGHT * write.WIDTH, dtype=np.uint8).reshape(write.HEIGHT, write.WIDTH)
    mask = write.save(tmp_path / "1-mask.bmp", values)
    table = make_table("mine", [Sample("1", image, "cat", mask)], lambda pixels: pixels > 127)
    made = load_table(str(convert.convert(table, tmp_path / "out")))
    np.testing.assert_array_equal(np.asarray(Image.open(made.masks[0] or "")), (values > 127) * np.uint8(255))


@pytest.mark.parametrize("label", ["a/b", "..", ".hidden", "a\\b"])
def test_classes_that_cannot_be_folders(label: str, tmp_path: Path) -> None:
    image = write.save(tmp_path / "1.png", next(write.pictures(1)))
    with pytest.raises(InputError, match="cannot be the name of a folder"):
        convert.convert(make_table("mine", [Sample("1", image, label)]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^1: No such file or directory: .*gone\.png"):
        convert.convert(make_table("mine", [Sample("1", tmp_path / "gone.png", "cat")]), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_unknown_folder_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "inner").mkdir()
    write.write_coco(tmp_path / "inner")
    assert main(["data", "check", str(tmp_path)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "no known format, but" in said
    assert "inner looks like coco, because instances_train2017.json has images, annotations and" in said
    assert f"try `sal-fast data check {tmp_path}/inner`" in said
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "a.png").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"holds 0 folders, 1 \.png\); expected a folder images/<class>/ in it"
    ):
        load_table(str(empty))
    (empty / "b.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"b\.bin: no known format; expected one of folder, imagefolder"):
        load_table(str(empty / "b.bin"))
