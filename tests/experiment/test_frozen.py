"""Runs that train the head alone, on features that are computed once."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_runs import command, kept, rounds
from rank_process import together

import sal_fast
from sal_fast.cli import main
from sal_fast.data import features as feature_files
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config

SMALL = f"{Path(__file__).parents[1] / 'helpers/small_network.py'}:Small"
SMALLER = SMALL.replace(":Small", ":Smaller")
HEAD: dict[str, Any] = {
    "train": "head", "arch": SMALL, "output_stride": 32, "epochs": 3, "lr": 0.1, "regime": "sal",
}  # fmt: skip
CROPS: dict[str, Any] = {**HEAD, "augment": "turn", "crops": 2}
Tiny = Callable[..., Path]


def test_features_are_those_of_the_network(tiny: Tiny, tmp_path: Path) -> None:
    """The model that a run keeps gives the logits and maps that the run has measured."""
    folder = tiny(tmp_path / "run", **HEAD)
    run = sal_fast.load(folder)
    model = run.model()
    shown = np.load(folder / "rounds" / f"{len(run.rounds) - 1:03d}" / "examples.npz")
    paths = [Path(run.config.data) / "images" / f"{name}.jpg" for name in shown["ids"].tolist()]
    x = model.preprocess(paths)
    assert torch.equal(model(x).argmax(1), torch.from_numpy(shown["predicted"]))
    torch.testing.assert_close(model.explain(x), torch.from_numpy(shown["cams"]), rtol=0.01, atol=0.01)
    net = model.classifier.net
    assert all(not parameter.requires_grad for parameter in net.body.parameters())
    model.train()
    assert net.head.training
    assert not net.body.training


@pytest.mark.parametrize("options", [HEAD, {**CROPS, "regime": "tait", "teacher_arch": SMALLER}])
def test_it_repeats_and_resumes_bit_by_bit(options: dict[str, Any], tiny: Tiny, tmp_path: Path) -> None:
    whole = tiny(tmp_path / "whole", **options)
    part = sal_fast.run(
        Config.of({**sal_fast.load(whole).record["config"], "out": str(tmp_path / "part")}), until=1
    )
    assert len(part.rounds) == 1
    again = sal_fast.run(part.config).path
    assert rounds(again) == rounds(whole)
    assert kept(again) == kept(whole)


def test_a_resumed_run_decodes_nothing(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny(tmp_path / "whole", **HEAD)
    config = Config.of({**sal_fast.load(whole).record["config"], "out": str(tmp_path / "part")})
    sal_fast.run(config, until=1)
    looked: list[int] = []
    before = feature_files._half
    monkeypatch.setattr(feature_files, "_half", lambda *a: looked.append(1) or before(*a))
    sal_fast.run(config)
    assert not looked
    assert rounds(tmp_path / "part") == rounds(whole)


def test_features_that_were_cut_short_are_continued(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(tmp_path / "whole", **CROPS)
    monkeypatch.setattr(feature_files, "BLOCK", 7)
    monkeypatch.setattr(feature_files, "OFTEN", 1)
    blocks = [0]
    before = feature_files._half

    def third_dies(*given: Any) -> torch.Tensor:
        blocks[0] += 1
        if blocks[0] == 4:
            raise KeyboardInterrupt
        return before(*given)

    monkeypatch.setattr(feature_files, "_half", third_dies)
    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path / "cut", **CROPS)
    monkeypatch.setattr(feature_files, "_half", before)
    seen = len(list((tmp_path / "cut" / "frozen").glob("*/features.json")))
    assert seen == 1
    tiny(tmp_path / "cut", **CROPS)
    one, other = (
        next((tmp_path / name / "frozen").glob("*/features.bin")).read_bytes() for name in ("whole", "cut")
    )
    assert len(one) == len(other)
    values = (np.frombuffer(part, np.float16).astype(np.float32) for part in (one, other))
    np.testing.assert_allclose(*values, rtol=2e-3, atol=2e-3)  # blocks of another size round otherwise


@pytest.mark.full
def test_any_number_of_processes_gives_the_same(shared_folder: Path, tiny: Tiny, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the ranks
    options = {**CROPS, "regime": "tait", "teacher_arch": SMALLER, "criterion": "badge"}
    whole = tiny(tmp_path / "whole", **options)
    torch.set_num_threads(threads)
    shared = tmp_path / "shared"
    config = {**sal_fast.load(whole).record["config"], "out": str(shared)}
    together(tmp_path / "ranks", 3, [config])
    assert rounds(shared) == rounds(whole)
    assert kept(shared) == kept(whole)


def test_a_prepared_folder_holds_features(shared_folder: Path, tiny: Tiny, tmp_path: Path) -> None:
    prepared = tmp_path / "prepared"
    words = ["data", "prepare", "--data", str(shared_folder), "--out", str(prepared), "--image-size", "32"]
    assert main([*words, "--arch", SMALL]) == 0
    run = tiny(tmp_path / "run", **HEAD, data=str(prepared))
    assert not list((run / "frozen").glob("*/features.bin"))
    assert rounds(run) == rounds(tiny(tmp_path / "plain", **HEAD))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cam_layer": "layer3"}, "--cam-layer does not go with --train head"),
        ({"compile": True}, "--compile does not go with --train head"),
        ({"data_parallel": True}, "--data-parallel does not go with --train head"),
        (
            {"augment": "standard"},
            "expected --augment none without --crops, or another --augment and --crops",
        ),
        ({"crops": 2}, "expected --augment none without --crops"),
        ({"train": "all", "crops": 2}, "--crops 2 goes with --train head"),
    ],
)
def test_what_does_not_go_together_is_refused(
    options: dict[str, Any], said: str, tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        tiny(tmp_path / "run", **{**HEAD, **options})
    assert not (tmp_path / "run").exists()


def test_features_that_half_precision_cannot_hold_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    loud = tmp_path / "loud.py"
    loud.write_text(
        "import torch\n"
        "class Loud(torch.nn.Module):\n"
        "    def __init__(self, classes):\n"
        "        super().__init__()\n"
        "        self.head = torch.nn.Linear(3, classes)\n"
        "    def features(self, images):\n"
        "        return 1e6 * images[:, :, ::8, ::8]\n"
    )
    with pytest.raises(InputError, match="cannot be kept in half precision"):
        tiny(tmp_path / "run", **{**HEAD, "arch": f"{loud}:Loud"})


def test_other_weights_or_images_have_other_features(shared_folder: Path, tiny: Tiny, tmp_path: Path) -> None:
    names = set()
    for name, options in (("seed", {"seed": 1}), ("size", {"image_size": 40}), ("same", {})):
        folder = tiny(tmp_path / name, **{**HEAD, **options, "stop_fraction": 0.25})
        names |= {path.parent.name for path in (folder / "frozen").glob("*/features.json")}
    assert len(names) == 3


@pytest.mark.full
def test_a_frozen_run_survives_a_kill_at_any_time(shared_folder: Path, tiny: Tiny, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = {**CROPS, "regime": "tait", "teacher_arch": SMALLER, "data": str(shared_folder)}
    tiny(whole, **options)
    config = sal_fast.load(whole).record["config"]
    names = (
        "data",
        "train",
        "arch",
        "teacher_arch",
        "regime",
        "augment",
        "crops",
        "epochs",
        "lr",
        "image_size",
    )
    names += ("batch_size", "start_fraction", "query_fraction", "stop_fraction", "human_budget", "device")
    words = [word for name in names for word in ("--" + name.replace("_", "-"), str(config[name]))]
    for seconds in (3, 4, 5, 6, 8, 10, 12):
        process = command("run", *words, "--out", str(cut))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=seconds)
        process.kill()
        process.communicate()
    last = command("run", *words, "--out", str(cut))
    _, error = last.communicate()
    assert last.returncode == 0, error
    assert rounds(cut) == rounds(whole)
    assert kept(cut) == kept(whole)
