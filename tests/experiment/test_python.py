"""The package from Python: run, load, the model that comes out, plug-ins handed over as objects."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from experiment_runs import TINY, arguments, kept, rounds
from PIL import Image

import sal_fast
from sal_fast import plugins
from sal_fast.cli import main
from sal_fast.data import load_table
from sal_fast.errors import InputError
from sal_fast.experiment.watch import HEADER

Tiny = Callable[..., Path]
PLUGINS = Path(__file__).parents[2] / "examples" / "plugins"


@pytest.fixture(scope="module")
def finished(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> sal_fast.Run:
    """A short run, with augmentation, so that files are stored larger than the network sees them."""
    out = tmp_path_factory.mktemp("python") / "run"
    options = {**TINY, "data": str(shared_folder), "out": str(out), "augment": "standard", "epochs": 1}
    return sal_fast.run(sal_fast.Config(**options))


def test_a_run_from_python_is_the_run_of_the_command(
    finished: sal_fast.Run, shared_folder: Path, tmp_path: Path
) -> None:
    given = arguments(data=shared_folder, out=tmp_path / "run", augment="standard", epochs=1)
    assert main(["run", *given]) == 0
    assert rounds(tmp_path / "run") == rounds(finished.path)
    assert kept(tmp_path / "run") == kept(finished.path)


def test_what_load_reads(finished: sal_fast.Run) -> None:
    there = sal_fast.load(finished.path)
    assert there == finished
    assert there.classes == ["blue", "green", "red"]
    assert [one.labelled for one in there.rounds] == [5, 9, 14] == list(there.plan.labelled)
    lines = [json.loads(line) for line in (finished.path / "rounds.jsonl").read_text().splitlines()]
    assert [one.accuracy for one in there.rounds] == [line["accuracy"] for line in lines]
    assert there.summary is not None
    assert there.finished
    assert there.summary["accuracy"] == there.rounds[-1].accuracy
    assert there.config.regime == "sal"
    with pytest.raises(InputError, match="no run\\.json in it"):
        sal_fast.load(finished.path / "rounds")


def test_the_model_sees_what_the_run_saw(finished: sal_fast.Run, shared_folder: Path) -> None:
    """On the test images of examples.npz, read from their files: the same classes and maps."""
    seen = np.load(finished.path / "rounds" / "002" / "examples.npz")
    table = load_table(str(shared_folder))
    paths = dict(zip(table.ids, table.images, strict=True))
    model = finished.model()
    images = model.preprocess([paths[name] for name in seen["ids"]])
    assert images.shape == (len(seen["ids"]), 3, 32, 32)
    with torch.no_grad():
        logits = model(images)
    assert torch.equal(logits.argmax(1), torch.from_numpy(seen["predicted"]))
    torch.testing.assert_close(model.explain(images), torch.from_numpy(seen["cams"]), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"nothing\.jpg"):
        model.preprocess([shared_folder / "nothing.jpg"])


def test_a_run_without_a_model(finished: sal_fast.Run, tmp_path: Path) -> None:
    shutil.copytree(finished.path, tmp_path / "run")
    (tmp_path / "run/rounds/002/accuracy.safetensors").unlink()
    assert sal_fast.load(tmp_path / "run").model().metadata["round"] == 2
    shutil.rmtree(tmp_path / "run/model")
    with pytest.raises(InputError, match="weights are gone"):
        sal_fast.load(tmp_path / "run").model()
    (tmp_path / "run/rounds.jsonl").unlink()
    with pytest.raises(InputError, match="no finished round yet"):
        sal_fast.load(tmp_path / "run").model()


def test_on_round_takes_the_place_of_the_table(
    shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int, bool]] = []

    def watch(run: sal_fast.Run, last: sal_fast.Round) -> None:
        seen.append((last.round, len(run.rounds), run.finished))

    options = {**TINY, "data": str(shared_folder), "epochs": 1}
    sal_fast.run(sal_fast.Config(**options, out=str(tmp_path / "a")), on_round=watch, until=2)
    assert seen == [(0, 1, False), (1, 2, False)]
    assert capsys.readouterr().out == ""
    sal_fast.run(sal_fast.Config(**options, out=str(tmp_path / "a")))
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == HEADER.split()
    assert [line.split()[0] for line in shown[1:] if not line.startswith("      ")] == ["3/3"]
    assert max(map(len, shown)) <= 80


def test_objects_are_plug_ins(shared_folder: Path, tmp_path: Path) -> None:
    """A criterion, data and a network as objects; the run records their names and goes on with them."""

    def last_first(pool, k, seed):
        return sorted(range(len(pool)), key=lambda at: pool.ids[at], reverse=True)[:k]

    def small(classes):
        return plugins.load("network", f"{PLUGINS / 'network.py'}:four_convolutions")(classes)

    options = {**TINY, "output_stride": 32, "epochs": 1, "regime": "b1", "out": str(tmp_path / "run")}
    config = sal_fast.Config(**options)
    data = load_table(str(shared_folder))
    run = sal_fast.run(config, criterion=last_first, network=small, data=data)
    assert run.config.criterion.endswith("last_first")
    asked = [line.split(",")[0] for line in (run.path / "rounds/000/query.csv").read_text().splitlines()[1:]]
    assert asked == sorted(asked, reverse=True)
    with pytest.raises(InputError, match="holds a run of another configuration"):
        sal_fast.run(config, network=small, data=data)


@pytest.mark.parametrize(
    ("option", "spec"),
    [
        ("criterion", "criterion.py:rare_first"),
        ("generator", "generator.py:unlike_the_edge"),
        ("arch", "network.py:four_convolutions"),
        ("tracker", "tracker.py:append"),
    ],
)
def test_plug_ins_by_file(option: str, spec: str, tiny: Tiny, tmp_path: Path) -> None:
    """Whole runs with one file from outside; the run remembers the file's digest and refuses another."""
    file = tmp_path / spec.partition(":")[0]
    shutil.copy(PLUGINS / file.name, file)
    given = {option: f"{file}:{spec.partition(':')[2]}", "epochs": 1, "output_stride": 8}
    if option == "arch":
        given["output_stride"] = 32
    out = tiny(tmp_path / "runs" / "run", **given)
    assert len(rounds(out)) == 3
    if option == "tracker":
        assert len((tmp_path / "runs" / "all-rounds.jsonl").read_text().splitlines()) == 3
        return
    assert option in json.loads((out / "run.json").read_text())["inputs"]
    (out / "summary.json").unlink()
    lines = (out / "rounds.jsonl").read_text().splitlines(keepends=True)
    (out / "rounds.jsonl").write_text("".join(lines[:2]))
    file.write_text(file.read_text() + "\n# changed\n")
    with pytest.raises(InputError, match=f"--{option} has changed since"):
        tiny(out, **given)


def test_a_data_set_by_file(tmp_path: Path, shared_folder: Path, tiny: Tiny) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for kind, ending in (("images", ".png"), ("masks", ".mask.png")):
        for path in sorted((shared_folder / kind).glob("*/*")):
            Image.open(path).save(flat / f"{path.parent.name}-{path.stem}{ending}")
    spec = f"{PLUGINS / 'dataset.py'}:side_by_side"
    out = tiny(tmp_path / "run", data=spec, root=str(flat), epochs=1)
    record = json.loads((out / "run.json").read_text())
    assert record["data"]["classes"] == ["blue", "green", "red"]
    assert "data" in record["inputs"]
    assert rounds(out)[-1]["human_maps"] == 5


def test_resume_needs_no_other_option(finished: sal_fast.Run, tmp_path: Path) -> None:
    """Also in a folder that was moved; what may change when a run is resumed can be given."""
    cut = tmp_path / "moved"
    shutil.copytree(finished.path, cut)
    (cut / "summary.json").unlink()
    lines = (cut / "rounds.jsonl").read_text().splitlines(keepends=True)
    (cut / "rounds.jsonl").write_text("".join(lines[:1]))
    assert main(["run", "--resume", str(cut), "--decoder", "pillow"]) == 0
    assert rounds(cut) == rounds(finished.path)
    assert kept(cut) == kept(finished.path)
    assert main(["run", "--resume", str(cut), "--epochs", "9"]) == 2
    assert main(["run", "--resume", str(tmp_path / "nothing")]) == 2
    assert not (tmp_path / "nothing").exists()


def test_a_mistyped_name_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for options in (["--data", "phtographs"], ["--criterion", "mine.py:f"], ["--arch", "no.such.module:f"]):
        assert main(["run", *options]) == 2
    assert list(tmp_path.iterdir()) == []


def test_importing_and_reading_a_configuration_take_no_torch() -> None:
    code = "import sys, sal_fast; sal_fast.Config(epochs=3); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert {"run", "load", "Config"} <= set(dir(sal_fast))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sal_fast.nothing
