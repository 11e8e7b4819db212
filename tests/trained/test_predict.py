"""predict and explain: any images in, tables and pictures out, through kills and broken files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import sal_fast
from sal_fast import ops
from sal_fast.cli import main
from sal_fast.errors import InputError
from sal_fast.trained import explain as explaining
from sal_fast.trained import named, predict


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Seven photographs of several shapes in two folders, a broken one, and a text."""
    draws = np.random.default_rng(0)
    folder = tmp_path / "photographs"
    for number in range(7):
        path = folder / ("a" if number < 4 else "b") / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 256, (20 + number, 40 - number, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    (folder / "a" / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture either")
    return folder


def test_a_table_of_classes(
    model: sal_fast.SalModel,
    finished: sal_fast.Run,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    words = ["predict", str(finished.path), str(photographs)]
    assert main([*words, "--out", str(tmp_path / "csv")]) == 0
    said = capsys.readouterr()
    assert "8 images, 3 classes" in said.out
    assert "broken.jpg: not an image, or its first bytes are damaged; it is passed over" in said.err
    rows = pl.read_csv(tmp_path / "csv/predictions.csv")
    assert rows.columns == ["id", "image", "predicted", "probability", "p_blue", "p_green", "p_red", "error"]
    assert rows["id"].to_list() == ["a/0", "a/1", "a/2", "a/3", "a/broken", "b/4", "b/5", "b/6"]
    good = rows.filter(pl.col("error").is_null())
    with torch.no_grad():
        expected = model(model.preprocess([Path(path) for path in good["image"]])).softmax(1)
    np.testing.assert_allclose(good.select("p_blue", "p_green", "p_red").to_numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(good["probability"], expected.amax(1), atol=1e-6)
    broken = rows.row(4, named=True)
    assert broken["error"] == "not an image, or its first bytes are damaged"
    assert [broken[name] for name in ("predicted", "probability", "p_red")] == [None] * 3
    assert main([*words, "--out", str(tmp_path / "parquet"), "--format", "parquet"]) == 0
    typed = pl.read_parquet(tmp_path / "parquet/predictions.parquet")
    assert typed["id"].to_list() == rows["id"].to_list()
    np.testing.assert_allclose(typed["p_red"].to_numpy(), rows["p_red"].to_numpy(), rtol=1e-6)
    assert main([*words, "--out", str(tmp_path / "csv")]) == 0
    assert "is finished; nothing to do" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "photographs/notes.txt"), "--out", str(tmp_path / "csv")]) == 2
    assert "holds predictions that differ in 'images'; choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_a_kill_costs_one_block(
    command: str,
    finished: sal_fast.Run,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = predict if command == "predict" else explaining
    words = [command, str(finished.path), str(photographs)]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    monkeypatch.setattr(module, "BLOCK", 3)
    real, calls = module.finite, []

    def killed(logits: torch.Tensor) -> torch.Tensor:
        calls.append(len(logits))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(logits)

    monkeypatch.setattr(module, "finite", killed)
    assert main([*words, "--out", str(tmp_path / "parts")]) == 130
    assert main([*words, "--out", str(tmp_path / "parts")]) == 0
    assert calls == [3, 3, 3, 2]
    file = "predictions.csv" if command == "predict" else "explain.csv"
    whole, parts = (pl.read_csv(tmp_path / name / file) for name in ("whole", "parts"))
    assert whole.drop(pl.selectors.float()).equals(parts.drop(pl.selectors.float()))
    for name in whole.select(pl.selectors.float()).columns:
        np.testing.assert_allclose(parts[name].to_numpy(), whole[name].to_numpy(), rtol=1e-4)
    assert not (tmp_path / "parts/blocks").exists()
    names = [sorted(str(p.relative_to(tmp_path / out)) for p in (tmp_path / out).rglob("*")) for out in
             ("whole", "parts")]  # fmt: skip
    assert names[0] == names[1]


def test_a_manifest_and_files(finished: sal_fast.Run, photographs: Path, tmp_path: Path) -> None:
    """A manifest's own ids are kept, and what is named twice counts once."""
    manifest = photographs / "list.csv"
    manifest.write_text("image,id\na/0.jpg,first\nb/5.jpg,second\n")
    found = named.table([manifest, photographs / "a/0.jpg", photographs / "a/1.jpg"])
    assert found.ids == ["1", "first", "second"]
    (photographs / "plain.csv").write_text("image\na/0.jpg\nb/5.jpg\n")
    assert named.table([photographs / "plain.csv"]).ids == ["a/0", "b/5"]
    assert named.table([photographs / "b" / "4.jpg"]).ids == ["4"]
    Image.new("RGB", (9, 9)).save(photographs / "b" / "4.png")
    assert named.table([photographs / "b"]).ids == ["4.jpg", "4.png", "5", "6"]
    for path, said in (
        (photographs / "absent.jpg", "not found; expected a picture, a folder"),
        (tmp_path / "none", "no images in it"),
    ):
        (tmp_path / "none").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=said):
            named.table([path])
    with pytest.raises(InputError, match="no images were named"):
        named.table([])
    manifest.write_text("image,id\na/0.jpg,one\nb/5.jpg,one\n")
    with pytest.raises(InputError, match="'one' stands for several images"):
        named.table([manifest])


def test_logits_that_are_no_numbers(finished: sal_fast.Run, photographs: Path, tmp_path: Path) -> None:
    broken = sal_fast.load_model(finished.path)
    with torch.no_grad():
        broken.classifier.head.bias.fill_(torch.nan)
    images = named.table([photographs / "b"])
    with pytest.raises(InputError, match="not finite"):
        predict.predict(broken, images, tmp_path / "out")


def test_pictures_of_where_it_looks(
    model: sal_fast.SalModel, finished: sal_fast.Run, photographs: Path, tmp_path: Path
) -> None:
    assert main(["explain", str(finished.path), str(photographs), "--out", str(tmp_path / "out")]) == 0
    out = tmp_path / "out"
    rows = pl.read_csv(out / "explain.csv")
    assert rows.columns == ["id", "image", "class", "probability", "overlay", "map", "array", "error"]
    assert rows.filter(pl.col("error").is_not_null())["id"].to_list() == ["a/broken"]
    good = rows.filter(pl.col("error").is_null())
    for row in good.iter_rows(named=True):
        x = model.preprocess(row["image"])
        best = int(model(x).argmax())
        assert row["class"] == model.classes[best]
        expected = model.explain(x)[0]
        np.testing.assert_allclose(np.load(out / row["array"]), expected, rtol=1e-4, atol=1e-5)
        grey = np.asarray(Image.open(out / row["map"]))
        assert grey.shape == (32, 32)
        assert (grey.min(), grey.max()) == (0, 255)
        photograph = torch.from_numpy(np.array(Image.open(row["image"])))
        over = np.asarray(Image.open(out / row["overlay"])).astype(int)
        wanted = ops.overlay(photograph[None], expected[None])[0].numpy()
        assert over.shape == tuple(photograph.shape)
        assert np.abs(over - wanted).mean() < 12  # JPEG of noise
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.size[0] > 500
    (out / "sheet.png").unlink()
    assert main(["explain", str(finished.path), str(photographs), "--out", str(out)]) == 0
    assert (out / "sheet.png").is_file()


def test_several_classes(
    model: sal_fast.SalModel, finished: sal_fast.Run, photographs: Path, tmp_path: Path
) -> None:
    def drawn(classes: str) -> pl.DataFrame:
        out = tmp_path / classes
        words = ["explain", str(finished.path), str(photographs / "b"), "--out", str(out)]
        assert main([*words, "--class", classes, "--probe", "gradcam++"]) == 0
        return pl.read_csv(out / "explain.csv")

    x = model.preprocess(photographs / "b" / "4.jpg")
    shares = model(x)[0].softmax(0)
    order = [model.classes[at] for at in shares.argsort(descending=True)]
    assert drawn("red")["class"].to_list() == ["red"] * 3
    assert drawn("top2")["class"].to_list()[:2] == order[:2]
    every = drawn("all")
    assert every["class"].to_list()[:3] == model.classes
    np.testing.assert_allclose(every["probability"][:3], shares.detach(), atol=1e-6)
    assert every["overlay"][2] == "overlays/4.2-red.jpg"
    maps = np.load(tmp_path / "all" / every["array"][0])
    for at, name in enumerate(model.classes):
        expected = model.explain(x, name, "gradcam++")[0]
        np.testing.assert_allclose(maps[at], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="unknown class 'rad'; did you mean 'red'"):
        explaining.explain(model, named.table([photographs]), tmp_path / "none", classes="rad")
    assert not (tmp_path / "none").exists()
    both = named.table([photographs / "b"])
    with pytest.raises(InputError, match="that differ in 'classes'"):
        explaining.explain(model, both, tmp_path / "all", classes="top1", probe="gradcam++")


def test_other_content_is_not_taken_for_the_same(
    finished: sal_fast.Run,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Files that have changed, and files of one relative path in another folder, need another --out."""
    words = ["predict", str(finished.path), photographs.name, "--out", str(tmp_path / "out")]
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0
    shutil.copytree(photographs, tmp_path / "other" / photographs.name)
    monkeypatch.chdir(tmp_path / "other")
    assert main(words) == 2
    assert "holds predictions that differ in 'images'" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0
    (photographs / "a/0.jpg").write_bytes((photographs / "b/6.jpg").read_bytes())
    assert main(words) == 2
    assert "holds predictions that differ in 'images'" in capsys.readouterr().err


def test_pictures_in_out_are_no_input(finished: sal_fast.Run, photographs: Path) -> None:
    words = ["explain", str(finished.path), str(photographs), "--out", str(photographs / "out")]
    assert main(words) == 0
    assert main(words) == 0
    assert len(pl.read_csv(photographs / "out/explain.csv")) == 8


def test_names_that_are_hard_to_write(finished: sal_fast.Run, tmp_path: Path) -> None:
    """A name with mathematics in it, and one that leaves no room for a class."""
    for name in ("price_$5_$_x", "n" * 245):
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "odd.jpg")
        (tmp_path / "odd.jpg").rename(tmp_path / f"{name}.jpg")
    words = ["explain", str(finished.path), *map(str, sorted(tmp_path.glob("*.jpg"))), "--class", "all"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    rows = pl.read_csv(tmp_path / "out/explain.csv")
    assert len(rows) == 6
    assert len(set(rows["overlay"])) == 6
    assert all((tmp_path / "out" / one).is_file() for one in rows["overlay"])
    assert (tmp_path / "out/sheet.png").is_file()


def test_ids_of_manifests_and_of_paths_that_differ_in_their_endings(photographs: Path) -> None:
    table = photographs / "list.csv"
    table.write_text("Image,ID\na/0.jpg,first\na/0.jpg,second\n")
    assert named.table([table]).ids == ["first", "second"]
    assert named.table([table, photographs / "a/0.jpg"]).ids == ["first", "second"]
    table.write_text("image,id\na/0.jpg,first\n,second\n")
    with pytest.raises(InputError, match=r"list\.csv, line 3: 'image' is empty"):
        named.table([table])
    folder = photographs / "c"
    folder.mkdir()
    for name in ("x.jpg", "x.jpg.png", "x.png"):
        (folder / name).write_bytes((photographs / "a/0.jpg").read_bytes())
    assert named.table([folder]).ids == ["x.jpg", "x.jpg.png", "x.png"]
    both = named.table([photographs / "a", Path(os.path.relpath(photographs / "a"))])
    assert both.ids == ["0", "1", "2", "3", "broken"]


def test_dark_images_of_many_bits_are_told_of(
    finished: sal_fast.Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    deep = np.random.default_rng(0).integers(0, 4096, (20, 20)).astype(np.uint16)
    (tmp_path / "in").mkdir()
    Image.fromarray(deep).save(tmp_path / "in/0.png")
    words = ["predict", str(finished.path), str(tmp_path / "in"), "--out"]
    assert main([*words, str(tmp_path / "dark")]) == 0
    assert "for 12 bits say --white 4095" in " ".join(capsys.readouterr().err.split())
    assert main([*words, str(tmp_path / "light"), "--white", "4095"]) == 0
    assert "come out dark" not in capsys.readouterr().err
    assert main([*words, str(tmp_path / "dark"), "--white", "4095"]) == 2
    assert "that differ in 'white'" in capsys.readouterr().err
    tables = [pl.read_csv(tmp_path / name / "predictions.csv") for name in ("dark", "light")]
    assert not np.allclose(tables[0]["p_red"], tables[1]["p_red"])
