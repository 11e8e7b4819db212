"""One model in every shape that it takes gives the same logits and maps, from whatever directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from experiment_runs import TINY
from torch import Tensor

import sal_fast
from sal_fast.cli import main
from sal_fast.trained.model import SalModel

NETWORKS: dict[str, dict[str, Any]] = {
    "torchvision": {"arch": "resnet18", "augment": "standard"},
    "timm": {"arch": "mnasnet_small", "image_size": 96, "output_stride": 32},
    "vit": {"arch": "vit_tiny_patch16_224", "image_size": 64, "output_stride": 32, "probe": "gradcam"},
}


class Made(NamedTuple):
    """A run of one round, and its model on all images of the pool, in the order of their ids."""

    run: sal_fast.Run
    model: SalModel
    ids: list[str]
    paths: list[Path]
    x: Tensor
    logits: Tensor
    maps: Tensor


@pytest.fixture(scope="module", params=NETWORKS)
def made(
    request: pytest.FixtureRequest, shared_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    if request.param != "torchvision":
        pytest.importorskip("timm")
    out = tmp_path_factory.mktemp("round-trip") / "run"
    options = {**TINY, "data": str(shared_folder), "out": str(out), "epochs": 1, "regime": "b1"}
    run = sal_fast.run(sal_fast.Config(**{**options, **NETWORKS[request.param]}), on_round=print, until=1)
    model = sal_fast.load_model(out)
    paths = sorted((shared_folder / "images").glob("*/*.jpg"))
    ids = [f"{path.parent.name}/{path.stem}" for path in paths]
    x = model.preprocess(paths)
    with torch.no_grad():
        logits = model(x)
    return Made(run, model, ids, paths, x, logits, model.explain(x))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def close(got: Any, expected: Tensor) -> None:
    np.testing.assert_allclose(np.asarray(got), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_the_runs_own_evaluation(made: Made) -> None:
    seen = np.load(made.run.path / "rounds/000/examples.npz")
    at = [made.ids.index(name) for name in seen["ids"].tolist()]
    assert made.logits[at].argmax(1).tolist() == seen["predicted"].tolist()
    close(seen["cams"], made.maps[at])
    tests = [made.ids.index(name) for name in made.run.record["splits"]["test"]]
    labels = [made.model.classes.index(made.ids[one].split("/")[0]) for one in tests]
    right = made.logits[tests].argmax(1) == torch.tensor(labels)
    assert float(right.double().mean()) == made.run.rounds[0].accuracy


def test_every_way_to_load(made: Made, tmp_path: Path) -> None:
    """The run, its folder, the file, and a copy of the folder that lies alone."""
    folder, alone = made.run.path / "model", tmp_path / "alone"
    alone.mkdir()
    (alone / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    for model in (
        made.run.model(),
        *map(sal_fast.load_model, (str(folder), folder / "model.safetensors", alone)),
    ):
        assert not model.training
        assert model.metadata == made.model.metadata
        with torch.no_grad():
            close(model(made.x), made.logits)
        close(model.explain(made.x), made.maps)


def test_predict(made: Made, shared_folder: Path) -> None:
    assert main(["predict", str(made.run.path), str(shared_folder / "images"), "--out", "out"]) == 0
    rows = pl.read_csv("out/predictions.csv")
    assert rows["id"].to_list() == made.ids
    columns = [f"p_{name}" for name in made.model.classes]
    close(rows.select(columns).to_numpy(), made.logits.softmax(1))
    best = [made.model.classes[at] for at in made.logits.argmax(1)]
    assert rows["predicted"].to_list() == best


def test_explain(made: Made, shared_folder: Path) -> None:
    assert main(["explain", str(made.run.path), str(shared_folder / "images"), "--out", "out"]) == 0
    for name, expected in zip(made.ids, made.maps, strict=True):
        close(np.load(f"out/maps/{name}.npy"), expected)


def test_score(made: Made, shared_folder: Path) -> None:
    words = ["--weights", str(made.run.path / "model"), "--data", str(shared_folder), "--out", "out"]
    assert main(["score", *words]) == 0
    assert Path("out/ids.txt").read_text().splitlines() == made.ids
    close(np.load("out/logits.npy"), made.logits)


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_export(made: Made, form: str) -> None:
    pytest.importorskip("onnxruntime")
    assert main(["export", str(made.run.path), "--to", form, "--out", f"m.{form}"]) == 0
    for count in (1, 7):
        part = made.x[:count]
        if form == "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
            logits, maps = session.run(["logits", "maps"], {"images": part.numpy()})
        else:
            logits, maps = torch.export.load("m.pt2").module()(part)
            logits, maps = logits.detach(), maps.detach()
        close(logits, made.logits[:count])
        close(maps, made.maps[:count])
