"""What a run takes for `auto`: once, from the pool and the weights at hand; and what it says of that."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from experiment_runs import TINY, kept, rounds

import sal_fast
from sal_fast.cli.run import parse
from sal_fast.distributed import ALONE
from sal_fast.errors import InputError
from sal_fast.experiment import checks, settling
from sal_fast.experiment.config import Config
from sal_fast.experiment.run import run
from sal_fast.models import weights

HELPERS = Path(__file__).parents[1] / "helpers"
NETWORK = f"{HELPERS / 'pretrained_network.py'}:network"
PLAIN = f"{HELPERS / 'small_network.py'}:Small"
Say = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEPT", raising=False)
    monkeypatch.delenv("REACHED", raising=False)


def settled(pool: int = 36, **options: Any) -> Config:
    return settling.settle(Config.of({"data": "mine", "arch": NETWORK, **options}), pool, {}, ALONE)


@pytest.mark.parametrize(
    ("at_hand", "offline", "expected"),
    [
        ("", False, "none"),
        ("REACHED", False, "DEFAULT"),
        ("REACHED", True, "none"),
        ("KEPT", True, "DEFAULT"),
    ],
)
def test_pretrained_weights_where_they_can_be_had(
    at_hand: str,
    offline: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "sal_fast")
    if at_hand:
        monkeypatch.setenv(at_hand, "small.pth")
    assert settled(offline=offline).weights == expected
    (said,) = caplog.messages
    if expected == "DEFAULT":
        assert said == "--weights auto: small begins with its pretrained weights, DEFAULT"
    else:
        assert said.startswith("--weights auto: small begins at random, which takes many more images; ")
        assert "https://example.org/small.pth" in said
        assert "to --weights" in said


def test_a_network_without_pretrained_weights(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sal_fast")
    assert settled(arch=PLAIN).weights == "none"
    assert "has no pretrained weights of its own; --weights takes a file" in caplog.text


def test_what_was_given_stays(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sal_fast")
    config = settled(weights="w.pth", start_fraction=0.5, query_fraction=0.25)
    assert (config.weights, config.start_fraction, config.query_fraction) == ("w.pth", 0.5, 0.25)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("options", "pool", "advised"),
    [
        ({"weights": "none"}, 36, True),
        ({"preset": "cyborg"}, 36, True),
        ({"weights": "none"}, 10_000, False),
        ({"weights": "none", "arch": PLAIN}, 36, False),
        ({"data": "builtin"}, 36, False),
        ({"data": "builtin", "train": "head"}, 36, True),
    ],
)
def test_pretrained_weights_are_advised(
    options: dict, pool: int, advised: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sal_fast")
    settled(pool, **options)
    assert [("--weights DEFAULT begins with" in said) for said in caplog.messages] == [True] * advised


@pytest.mark.parametrize(
    ("teacher", "at_hand", "expected"),
    [(PLAIN, True, "none"), (NETWORK, True, "same"), ("same", True, "same"), (PLAIN, False, "same")],
)
def test_the_teachers_weights(
    teacher: str, at_hand: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`same` stands for the weights of --weights, which another network may not have."""
    if at_hand:
        monkeypatch.setenv("REACHED", "1")
    config = settled(regime="tait", teacher_arch=teacher)
    assert config.teacher_weights == expected
    assert settled(regime="b2", teacher_arch=teacher).teacher_weights == "same"


def test_offline_refuses_weights_that_are_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(data="mine", arch=NETWORK, weights="DEFAULT", offline=True)
    with pytest.raises(InputError, match=r"not on this machine: fetch https://example\.org/small\.pth and"):
        checks.check_weights(config)
    monkeypatch.setenv("KEPT", "small.pth")
    checks.check_weights(config)
    checks.check_weights(config.replace(weights="none"))


def test_a_library_tells_what_an_earlier_download_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match="weights 'DEFAULT' of resnet18 are not on this machine: fetch http"):
        weights.check_kept("resnet18", "DEFAULT")
    place = tmp_path / "checkpoints" / Path(weights.urls("resnet18")["DEFAULT"]).name
    place.parent.mkdir()
    place.touch()
    weights.check_kept("resnet18", "DEFAULT")
    with pytest.raises(
        InputError, match="weights 'DEFULT': expected none, one of torchvision's for resnet18"
    ):
        weights.check_kept("resnet18", "DEFULT")


# --- whole runs -------------------------------------------------------------------------------------------


@pytest.fixture
def own(shared_folder: Path, tmp_path: Path) -> Callable[..., Config]:
    """Data of one's own with the preset that it gets: 18 training images."""
    wanted = ("image_size", "batch_size", "device")

    def make(**options: Any) -> Config:
        tiny = {name: TINY[name] for name in wanted}
        named = {"data": str(shared_folder), "arch": NETWORK, "epochs": 1, "out": str(tmp_path / "run")}
        return Config.of({**tiny, **named, **options})

    return make


def test_a_run_keeps_what_it_took(own: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REACHED", "1")
    made = run(own(), until=1)
    record = json.loads((made.path / "run.json").read_text())
    assert record["config"]["weights"] == record["config"]["start_fraction"] == "auto"
    took = {"weights": "DEFAULT", "baseline": "none", "start_fraction": 1.0, "query_fraction": 1.0}
    assert record["took"] == took
    assert (made.config.weights, made.config.start_fraction) == ("DEFAULT", 1.0)
    assert sal_fast.load(made.path).plan.labelled == (18,)


def test_a_run_that_goes_on_takes_the_same(
    own: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that have come meanwhile change nothing; nor does it matter how the run is named."""
    options = {"query_fraction": 0.25, "start_fraction": 0.25, "stop_fraction": 0.75}
    whole = run(own(**options, out=str(tmp_path / "whole"))).path
    cut = own(**options)
    run(cut, until=1)
    monkeypatch.setenv("REACHED", "1")
    run(cut, until=2)
    done = run(parse(["--resume", str(cut.run_folder)]))
    assert done.config.weights == "none"
    assert rounds(done.path) == rounds(whole)
    assert kept(done.path) == kept(whole)
    assert run(done.config).rounds == done.rounds  # what `load` gives names the same run
    with pytest.raises(InputError, match="weights 'none' there, 'DEFAULT' asked"):
        run(cut.replace(weights="DEFAULT"))


def test_a_run_from_before_it_was_settled_goes_on(
    own: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its options were given, or defaults. The same command now says `auto`, which is what the run has."""
    given = {"weights": "none", "start_fraction": 0.25, "query_fraction": 0.5}
    old = run(own(**given), until=1)
    record = json.loads((old.path / "run.json").read_text())
    del record["took"]
    (old.path / "run.json").write_text(json.dumps(record))
    monkeypatch.setenv("REACHED", "1")
    done = run(own())
    assert (done.config.weights, done.config.start_fraction, done.finished) == ("none", 0.25, True)


def test_the_log_tells_the_plan_before_the_first_round(
    own: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sal_fast")
    config = own(start_fraction=0.25, query_fraction=0.25, human_budget=0.5)
    run(config, until=1)
    run(config, until=2)
    said = [line for record in caplog.messages for line in record.split("\n")]
    plans = [line for line in said if line.startswith("plan: ")]
    assert plans[0] == (
        "plan: 4 rounds, 5 images at the start, then 3 queries of 4 to 5; people label 18 images and draw "
        "9 maps"
    )
    times = [line for line in said if line.startswith("time: ")]
    assert times[0].endswith("; an estimate from one batch")
    assert times[1].endswith("left, an estimate from the last finished rounds")
    run(config.replace(regime="b1", seed=1, human_budget=0.2, out=str(config.run_folder) + "-b1"), until=1)
    assert "people label 18 images and draw no maps" in caplog.text
    run(config.replace(human_budget="auto", out=str(config.run_folder) + "-auto"), until=1)
    assert "and draw at least 5 maps, at most 18" in caplog.text


def test_the_estimate_changes_nothing(
    own: Callable[..., Config], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It trains networks that are thrown away, and only where somebody reads it."""
    options = {"start_fraction": 0.25, "query_fraction": 0.25, "stop_fraction": 0.5, "augment": "color"}
    quiet = run(own(**options, out=str(tmp_path / "quiet"))).path
    caplog.set_level(logging.INFO, "sal_fast")
    told = run(own(**options)).path
    assert "an estimate from one batch" in caplog.text
    assert rounds(told) == rounds(quiet)
    assert kept(told) == kept(quiet)


def test_every_part_of_the_recipe_reaches_a_run(own: Callable[..., Config], tmp_path: Path) -> None:
    """Nothing of it is left out on the way, and a run with it is continued to the same end."""
    (tmp_path / "w.toml").write_text("blue = 1\ngreen = 2\nred = 0.5\n")
    options = {
        "start_fraction": 0.25, "query_fraction": 0.25, "stop_fraction": 0.5, "epochs": 2,
        "optimizer": "adamw", "schedule": "cosine", "warmup": 1, "weight_decay": 0.1, "head_lr": 0.1,
        "label_smoothing": 0.1, "class_weights": str(tmp_path / "w.toml"), "val_every": "auto",
        "augment": "vflip+turn", "weights": "none",
    }  # fmt: skip
    first = run(own(**options), until=1)
    (tmp_path / "w.toml").write_text("blue = 1\ngreen = 2\nred = 0.75\n")
    with pytest.raises(InputError, match="made with other files: --class-weights has changed since"):
        run(own(**options))
    (tmp_path / "w.toml").write_text("blue = 1\ngreen = 2\nred = 0.5\n")
    done = run(own(**options))
    again = run(own(**options, out=str(tmp_path / "again"))).path
    assert rounds(done.path) == rounds(again)
    assert kept(done.path) == kept(again)
    assert len(first.rounds) == 1


def test_a_plug_in_varies_the_images_of_a_run(own: Callable[..., Config], tmp_path: Path) -> None:
    options = {"start_fraction": 0.25, "stop_fraction": 0.25, "regime": "b2", "weights": "none"}
    calls: list[int] = []

    def counted(image: Any, map_: Any, rng: Any) -> Any:
        calls.append(len(image))
        return image, map_

    given = run(own(**options), augmentation=counted)
    assert calls == [32] * 5
    assert given.config.augment.endswith("counted")
    plain = run(own(**options, out=str(tmp_path / "plain")))
    assert given.rounds[0].labelled == plain.rounds[0].labelled
    mine = tmp_path / "mine.py"
    mine.write_text("def f(image, map, rng):\n    return image, map\n")
    own_file = own(**options, augment=f"{mine}:f", out=str(tmp_path / "file"))
    named = run(own_file)
    assert set(named.record["inputs"]) == {"arch", "augment"}
