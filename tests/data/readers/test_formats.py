"""Each format gives the table and the masks of the plain folder with the same content, bit by bit."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import format_writers as write
import numpy as np
import pytest

from sal_fast.data import files, load_table
from sal_fast.data.readers import Options


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAL_FAST_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", write.FORMATS)
def test_the_same_as_the_plain_folder(name: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    shown = write.FORMATS[name](root)
    table = load_table(str(root))
    assert table.notes[0].startswith(f"read as {name}, because "), table.notes
    plain = load_table(str(write.write_plain(tmp_path / "plain", shown)))
    assert {one.label for one in shown} == {"cat", "dog"}
    assert write.content(table) == write.content(plain) == write.meant(shown)
    again = load_table(str(root), options=Options(name))
    assert (again.ids, again.images, again.masks) == (table.ids, table.images, table.masks)


@pytest.mark.parametrize("name", ["coco", "labelme", "cvat", "label-studio", "hf-parquet"])
def test_the_cache_is_used_until_a_source_changes(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "set"
    root.mkdir()
    write.FORMATS[name](root)
    with caplog.at_level(logging.INFO, "sal_fast"):
        first = load_table(str(root))
        stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")}
        assert stamps
        assert "are written to" in caplog.text
        caplog.clear()
        assert load_table(str(root)).masks == first.masks
        assert "are kept in" in caplog.text
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")}
    for source in (*root.rglob("*.json"), *root.rglob("*.xml"), *root.rglob("*.parquet")):
        data = source.read_bytes()
        source.write_bytes(data + b"\n" if source.suffix != ".parquet" else data)
    changed = load_table(str(root))
    assert changed.masks != first.masks
    assert write.content(changed) == write.content(first)


def test_runs_in_the_code_of_pycocotools() -> None:
    """Every code that pycocotools writes, of masks with runs of any length, is read as it reads it."""
    from pycocotools import mask

    from sal_fast.data.readers import coco

    rng = np.random.default_rng(0)
    for _ in range(200):
        width, height = (int(side) for side in rng.integers(1, 90, 2))
        share = rng.choice([0.0, 0.01, 0.5, 0.99, 1.0])
        pixels = np.asfortranarray((rng.random((height, width)) < share).astype(np.uint8))
        code = mask.encode(pixels)
        found = coco.drawn({"size": [height, width], "counts": code["counts"].decode()}, (width, height))
        np.testing.assert_array_equal(found, pixels.astype(bool))


def test_coco_as_pycocotools_reads_it(tmp_path: Path) -> None:
    """The pixels of every label are those of COCO's own reader; the class has most of them."""
    from pycocotools.coco import COCO

    write.write_coco(tmp_path)
    table = load_table(str(tmp_path))
    for split in ("train", "val"):
        own = COCO(tmp_path / f"annotations/instances_{split}2017.json")
        for image in own.loadImgs(own.getImgIds()):
            of_label: dict[str, np.ndarray] = {}
            with warnings.catch_warnings(action="ignore"):  # pycocotools warns of numpy 2
                for one in own.loadAnns(own.getAnnIds(imgIds=image["id"])):
                    label = own.loadCats(one["category_id"])[0]["name"]
                    drawn = own.annToMask(one).astype(bool)
                    of_label[label] = of_label.get(label, np.zeros_like(drawn)) | drawn
            row = table.ids.index(f"{split}2017/{Path(image['file_name']).stem}")
            name, mask = table.class_name(row), table.masks[row]
            assert mask is not None
            np.testing.assert_array_equal(files.grades(files.read(mask)) > 0, of_label[name])
            assert of_label[name].sum() == max(pixels.sum() for pixels in of_label.values())


def test_several_labels_of_an_image_are_told(tmp_path: Path) -> None:
    """One rule holds for COCO, LabelMe, CVAT, VOC and Label Studio, and a note states it."""
    for name in ("coco", "labelme", "cvat", "voc", "label-studio"):
        (tmp_path / name).mkdir()
        write.FORMATS[name](tmp_path / name)
        notes = load_table(str(tmp_path / name), options=Options(name)).notes
        said = [
            note for note in notes if note.startswith("images with several labels, whose class is the one")
        ]
        assert len(said) == (name != "cvat"), notes
