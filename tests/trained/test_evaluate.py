"""sal-fast evaluate: the figures of a run's model are those that the run found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from experiment_runs import TINY
from PIL import Image

import sal_fast
from sal_fast.cli import main
from sal_fast.data import load_table
from sal_fast.errors import InputError
from sal_fast.metrics import MapFigures
from sal_fast.models import weights
from sal_fast.report import evaluation
from sal_fast.trained import metadata
from sal_fast.trained.evaluate import Judged, chosen, judge, subset


@pytest.fixture(scope="module")
def run(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> sal_fast.Run:
    """A short run whose files are stored larger than the network sees them."""
    out = tmp_path_factory.mktemp("evaluate") / "run"
    options = {**TINY, "data": str(shared_folder), "out": str(out), "augment": "standard", "epochs": 1}
    return sal_fast.run(sal_fast.Config(**options))


def told(out: Path) -> dict[str, float | None]:
    """The figures by name."""
    return {one["name"]: one["value"] for one in json.loads((out / "figures.json").read_text())["figures"]}


def test_the_figures_are_those_of_the_run(
    run: sal_fast.Run, shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(run.path), "--data", str(shared_folder), "--out", str(tmp_path)]
    assert main([*words, "--changed-images", "2"]) == 0
    last, found = run.rounds[-1], told(tmp_path)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "dice", "iou", "pointing"):
        assert found[name] == pytest.approx(getattr(last, name), abs=1e-6), name
    assert {"auroc", "ece", "deletion", "insertion", "energy", "energy_gain"} <= found.keys()
    assert not {"cc", "kl", "nss", "worst_subgroup_accuracy"} & found.keys()

    images = pl.read_csv(tmp_path / "images.csv")
    assert sorted(images["id"].to_list()) == sorted(run.record["splits"]["test"])
    assert images["right"].mean() == pytest.approx(last.accuracy)
    assert images["deletion"].count() == images["insertion"].count() == 2
    seen = np.load(run.path / "rounds" / "002" / "examples.npz")
    kept = dict(zip(seen["ids"].tolist(), seen["predicted"].tolist(), strict=True))
    predicted = dict(zip(images["id"].to_list(), images["predicted"].to_list(), strict=True))
    assert {name: run.classes[label] for name, label in kept.items()} == {one: predicted[one] for one in kept}
    classes = pl.read_csv(tmp_path / "classes.csv")
    assert last.per_class is not None
    assert classes["class"].to_list() == run.classes
    assert classes["images"].to_list() == last.per_class.images
    assert classes["recall"].to_list() == pytest.approx(last.per_class.recall, abs=1e-5)
    for name in ("confusion.png", "reliability.png", "confusion.csv", "reliability.csv", "figures.csv"):
        assert (tmp_path / name).stat().st_size > 30
    shown = capsys.readouterr()
    assert f"{len(images)} images of pool, 3 classes" in shown.out
    assert "balanced accuracy" in shown.out
    assert "the splits are those of the run" in shown.err
    assert "fewer than 50" in shown.err


def test_a_copy_of_the_model_has_no_run(
    run: sal_fast.Run, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """All images of another folder, with a subgroup for each and one class without images."""
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "model.safetensors").write_bytes((run.path / "model" / "model.safetensors").read_bytes())
    table = load_table(str(make_folder(tmp_path / "other", per_class=4)))
    table = subset(table, [row for row in range(len(table)) if table.class_name(row) != "green"])
    table = replace(table, classes=["blue", "red"], labels=[int(label > 1) for label in table.labels])
    judged = judge(copy, table)
    assert len(judged.ids) == 8
    tested = replace(judged.tested, subgroups=["x"] * 3 + [""] + ["y"] * 4)
    evaluation.write(Judged(copy, "other", judged.ids, tested, judged.notes), tmp_path / "out")
    groups = pl.read_csv(tmp_path / "out" / "subgroups.csv")
    right = (tested.labels == tested.predicted).double()
    assert groups["subgroup"].to_list() == ["x", "y"]
    assert groups["images"].to_list() == [3, 4]
    want = [right[:3].mean().item(), right[4:].mean().item()]
    assert groups["accuracy"].to_list() == pytest.approx(want)
    assert told(tmp_path / "out")["worst_subgroup_accuracy"] == pytest.approx(min(want))
    dice = tested.maps.dice.double()
    want = min(dice[:3].mean().item(), dice[4:].mean().item())
    assert told(tmp_path / "out")["worst_subgroup_dice"] == pytest.approx(want)
    green = pl.read_csv(tmp_path / "out" / "classes.csv").row(1, named=True)
    assert (green["class"], green["images"], green["recall"], green["auroc"]) == ("green", 0, None, None)


def test_which_images_are_taken(shared_folder: Path) -> None:
    table = load_table(str(shared_folder))
    names = table.ids
    everything = list(range(len(names)))
    rows, notes = chosen(table, "auto", None)
    assert rows == everything
    assert len(notes) == 1
    assert "lies outside the folder of its run, so it cannot be told" in notes[0]
    own = {"train": names[:20], "val": names[20:24], "test": names[24:]}
    rows, notes = chosen(table, "auto", own)
    assert rows == everything[24:]
    assert len(notes) == 1
    rows, notes = chosen(table, "all", own)
    assert rows == everything
    assert "24 of 30 images have the names of images that the run trained or validated with" in notes[1]
    # the run's data, of which images without a class are left out
    part = subset(table, everything[10:])
    assert chosen(part, "auto", own, names)[0] == everything[14:20]
    # a data set of its own, which shares some names with the run's
    rows, notes = chosen(table, "auto", {"train": names[:2], "val": [], "test": ["other"]})
    assert rows == everything
    assert "2 of 30 images" in notes[0]
    with_splits = table.with_split(["train"] * 25 + ["test"] * 5)
    assert chosen(with_splits, "auto", None)[0] == everything[25:]
    with pytest.raises(
        InputError, match="--split val: pool has no images in it; expected one of auto, all, train"
    ):
        chosen(with_splits, "val", None)


def test_what_is_refused(run: sal_fast.Run, shared_folder: Path, tmp_path: Path) -> None:
    table = load_table(str(shared_folder))
    strange = replace(table, classes=["blue", "green", "violet"])
    with pytest.raises(
        InputError, match="has the class 'violet', which the model does not know; it knows blue"
    ):
        judge(run.path, strange)
    with pytest.raises(InputError, match="no image has a class"):
        judge(run.path, replace(table, labels=[-1] * len(table)))
    with pytest.raises(InputError, match="no model found"):
        judge(tmp_path, table)
    bare = replace(table, labels=[-1, *table.labels[1:]])
    judged = judge(run.path, bare, split="all")
    assert table.ids[0] not in judged.ids
    assert judged.notes[0] == "images without a class, which are left out: 1"


def test_deep_images_are_scaled_as_the_model_wants_them(run: sal_fast.Run, tmp_path: Path) -> None:
    """A model of 12 bits judges files of 12 bits, whose white is 4095, without being told so again."""
    copy = tmp_path / "model"
    shutil.copytree(run.path / "model", copy)
    about, state = metadata.read(copy / "model.safetensors"), weights.read(copy / "model.safetensors")
    (copy / "model.safetensors").write_bytes(weights.to_bytes(state, {**about, "white": 4095}))
    draws = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "deep" / "images" / run.classes[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 4096, (40, 40)).astype(np.uint16)).save(path)
    table = load_table(str(tmp_path / "deep"))
    model = sal_fast.load_model(copy)
    with torch.no_grad():
        expected = model(model.preprocess(table.images))
    judged = judge(copy, table)
    torch.testing.assert_close(judged.tested.logits, expected, rtol=1e-4, atol=1e-4)
    dark = judge(run.path / "model", table).tested.logits
    assert float((dark - expected).abs().max()) > 1e-3


def test_a_smaller_judgement_leaves_no_file_of_a_larger_one(
    run: sal_fast.Run, shared_folder: Path, tmp_path: Path
) -> None:
    table = load_table(str(shared_folder))
    judged = judge(run.path, replace(table, subgroup=[f"{at % 7}" for at in range(len(table))]))
    evaluation.write(judged, tmp_path)
    assert (tmp_path / "subgroups.csv").exists()
    evaluation.write(replace(judged, tested=replace(judged.tested, subgroups=[])), tmp_path)
    assert not (tmp_path / "subgroups.csv").exists()


def test_many_subgroups_of_which_one_has_a_map(
    run: sal_fast.Run, shared_folder: Path, tmp_path: Path
) -> None:
    judged = judge(run.path, load_table(str(shared_folder)), split="all")
    tested, copies = judged.tested, 5
    dice = torch.full((copies * len(tested.labels),), torch.nan)
    dice[-1] = 0.25
    many = replace(
        tested,
        labels=tested.labels.repeat(copies),
        predicted=tested.predicted.repeat(copies),
        logits=tested.logits.repeat(copies, 1),
        maps=MapFigures(*(one.repeat(copies) for one in tested.maps))._replace(dice=dice),
        subgroups=[f"{at:03}" for at in range(len(dice))],
    )
    evaluation.write(replace(judged, tested=many, ids=judged.ids * copies), tmp_path)
    rows = json.loads((tmp_path / "figures.json").read_text())["figures"]
    worst = next(one for one in rows if one["name"] == "worst_subgroup_dice")
    assert (worst["value"], worst["images"]) == (0.25, 1)
    assert pl.read_csv(tmp_path / "subgroups.csv")["maps"].to_list() == [0] * (len(dice) - 1) + [1]


def test_a_flat_map_is_told_of(run: sal_fast.Run, shared_folder: Path) -> None:
    from sal_fast.trained.evaluate import _doubts

    tested = judge(run.path, load_table(str(shared_folder)), split="all").tested
    count = len(tested.labels)
    areas = torch.full((count,), 0.5)
    maps = tested.maps._replace(
        auc_judd=areas, cc=areas.clone().index_fill(0, torch.tensor([1, 2]), torch.nan)
    )
    assert any(
        note.startswith("2 maps have the same value everywhere")
        for note in _doubts(replace(tested, maps=maps))
    )
