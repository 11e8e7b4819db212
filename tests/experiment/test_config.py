"""Defaults, presets, TOML and the command line fill one dataclass; what cannot be is refused by name."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from sal_fast.cli.run import parse
from sal_fast.errors import InputError
from sal_fast.experiment.checks import check_networks
from sal_fast.experiment.config import OPTIONS, Config
from sal_fast.experiment.options import Option, helps_of, option, options_of
from sal_fast.experiment.presets import PRESETS


def test_bare_run_is_the_builtin_set_with_its_preset() -> None:
    config = parse([])
    assert (config.data, config.regime, config.criterion, config.probe, config.weights) == (
        "builtin",
        "sal",
        "margin",
        "cam",
        "none",
    )
    assert config.preset == "builtin"
    assert config.epochs == PRESETS["builtin"]["epochs"]
    assert config.run_folder == Path("runs/builtin-sal-margin-s0")


def test_other_data_gets_the_papers_schedule() -> None:
    config = parse(["--data", "somewhere/pool"])
    assert config.preset == "own"
    assert (config.epochs, config.lr, config.batch_size, config.lr_step, config.image_size) == (
        50,
        0.005,
        20,
        12,
        224,
    )
    assert (config.start_fraction, config.query_fraction, config.human_budget) == ("auto", "auto", 0.2)
    assert config.weights == "auto"
    assert config.run_folder.name == "pool-sal-margin-s0"
    named = parse(["--data", "cub200", "--root", "archives"])
    assert (named.preset, named.weights, named.start_fraction, named.query_fraction) == (
        "cub200", "none", 0.05, 0.05
    )  # fmt: skip


def test_a_folder_called_like_a_preset_is_data_of_ones_own() -> None:
    assert Config(data="finetune").preset == "own"
    assert Config(data="builtin").preset == "builtin"


def test_what_only_some_presets_have() -> None:
    """The paper's sets and cyborg validate after every epoch, and begin with the weights that one names."""
    of_the_paper = set(PRESETS) - {"own", "finetune", "frozen"}
    for name in of_the_paper:
        config = Config(preset=name)
        assert (config.val_every, config.weights, config.optimizer, config.warmup) == (1, "none", "sgd", 0)
        assert "auto" not in (config.start_fraction, config.query_fraction)
    for name in ("finetune", "frozen"):
        assert (Config(preset=name).val_every, Config(preset=name).weights) == ("auto", "DEFAULT")
    for name in PRESETS:
        Config(preset=name).check()
    assert Config(preset="frozen").train == "head"


def test_preset_then_file_then_command_line(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('epochs = 7\nlr = 1\nregime = "b2"\n"batch-size" = 9\n')
    config = parse(["--config", str(file), "--epochs", "3"])
    assert (config.epochs, config.lr, config.batch_size, config.regime) == (3, 1, 9, "b2")
    assert config.image_size == PRESETS["builtin"]["image_size"]
    assert parse(["--preset=cyborg"]).epochs == 50


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown option 'epoch'; did you mean 'epochs'"),
        ('epochs = "3"', "--epochs: expected a whole number, got '3'"),
        ("epochs = 3.5", "--epochs: expected a whole number, got 3.5"),
        ("warm-start = 1", "--warm-start: expected true or false, got 1"),
        ("data = 3", "--data: expected a text, got 3"),
        ("epochs =", "is not TOML"),
    ],
)
def test_toml_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text + "\n")
    with pytest.raises(InputError, match=message):
        parse(["--config", str(file)])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"regime": "sall"}, "unknown regime 'sall'; did you mean 'sal'.* b1, b2, sal, "),
        ({"criterion": "margins"}, "did you mean 'margin'"),
        ({"probe": "scorecam"}, "unknown probe 'scorecam'"),
        ({"arch": "vgg"}, "unknown network 'vgg'; did you mean 'vgg"),
        ({"preset": "big"}, "unknown preset 'big'"),
        ({"epochs": 0}, "--epochs 0: expected at least 1"),
        ({"lr": -1.0}, "--lr -1: expected a positive number"),
        ({"alpha": 1.1}, "--alpha 1.1: expected 0 to 1"),
        ({"seed": -1}, "--seed -1"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; did you mean 'adamw'"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"warmup": 25}, "--warmup 25: expected less than --epochs, which is 25"),
        ({"weight_decay": -1.0}, "--weight-decay -1: expected at least 0"),
        ({"head_lr": 0.0}, "--head-lr 0: expected a positive number"),
        ({"label_smoothing": 1.5}, "--label-smoothing 1.5: expected 0 to 1"),
        ({"val_every": 0}, "--val-every 0: expected at least 1"),
        ({"val_every": "often"}, "--val-every: expected a whole number or 'auto', got 'often'"),
        ({"start_fraction": "most"}, "--start-fraction: expected a number or 'auto', got 'most'"),
        ({"augment": "color+flip"}, "unknown augment 'flip'; did you mean 'vflip'"),
        ({"augment": "color+none"}, "--augment color[+]none: none goes with no other word"),
        ({"regime": "segmenter"}, "needs --segmenter-masks"),
        ({"cam_class": "labeled"}, "unknown cam class 'labeled'; did you mean 'labelled'"),
        ({"arch": "resnet18", "cam_layer": "conv3"}, "the nearest is 'layer4.1.conv2'"),
        ({"arch": "resnet50", "cam_layer": "layr3"}, "no such layer; the nearest is 'layer3'"),
        ({"arch": "resnet50", "cam_layer": "conv3", "compile": True}, "which --compile closes"),
    ],
)
def test_values_refused(values: dict, message: str) -> None:
    def checked() -> None:
        config = Config.of(values)
        config.check()
        check_networks(config)

    with pytest.raises(InputError, match=message):
        checked()


def test_every_option_has_a_help_text() -> None:
    helps = helps_of(Config)
    assert list(helps) == list(OPTIONS)
    assert all(text.endswith((".", "...")) for text in helps.values())


def test_an_option_that_does_not_say_what_it_affects_cannot_be_added() -> None:
    @dataclasses.dataclass(frozen=True)
    class More(Config):
        colour: str = "red"

    with pytest.raises(TypeError, match=r"More\.colour is no option: make it with `option\(\.\.\., affects="):
        options_of(More)
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'affects'"):
        option("red")
    with pytest.raises(TypeError, match="affects 'trainig'; did you mean 'training'"):
        option("red", affects="trainig")


@pytest.mark.parametrize(
    ("affects", "resume", "report"),
    [("", True, False), ("machine", False, False), ("training", False, True), ("data", False, False)],
)
def test_what_follows_from_what_an_option_affects(affects: str, resume: bool, report: bool) -> None:
    made = option("red", affects=affects).metadata["option"]
    assert (made.can_change_on_resume, made.tells_runs_apart) == (resume, report)


def test_the_derived_lists() -> None:
    """The lists that the program goes by: a new option shows here where it landed."""

    def those(test: Callable[[Option], object]) -> set[str]:
        return {name for name, one in OPTIONS.items() if test(one)}

    assert those(lambda one: one.can_change_on_resume) == {
        "allow_leaks", "add_data", "decoder", "offline", "store", "tracker", "preset", "out", "config",
        "baseline"
    }  # fmt: skip
    assert those(lambda one: one.grows) == {"stop_fraction", "human_budget"}
    assert those(lambda one: one.settled) == {
        "weights", "teacher_weights", "start_fraction", "query_fraction", "baseline", "own_masks"
    }  # fmt: skip
    assert those(lambda one: one.axis) == {
        "data", "regime", "criterion", "probe", "arch", "train", "start_by", "human_budget", "alpha", "seed",
        "control_maps"
    }  # fmt: skip
    assert those(lambda one: "maps" in one.affects) == {
        "regime", "human_budget", "segmenter_masks", "segmenter_weights", "generator", "alpha",
        "teacher_arch", "teacher_weights", "annotator", "own_masks"
    }  # fmt: skip
    assert those(lambda one: one.only == "has_teacher") == {"teacher_arch", "teacher_weights"}
    assert those(lambda one: one.compared) == {"criterion", "arch", "probe", "train", "start_by"}
    assert not any(OPTIONS["human_budget"].matters_to(regime) for regime in ("b1", "b2", "segmenter"))


def test_a_configuration_knows_what_was_given(tmp_path: Path) -> None:
    config = Config(data="builtin", seed=3)
    assert config.given == {"data", "seed"}
    assert config.epochs == PRESETS["builtin"]["epochs"]
    assert config.replace(data="photographs").epochs == 50  # the preset is that of the new data
    assert config.replace(epochs=7).replace(data="photographs").epochs == 7  # but what was given stays
    assert pickle.loads(pickle.dumps(config)) == config
    assert pickle.loads(pickle.dumps(config)).given == config.given
    (tmp_path / "a.toml").write_text('epochs = 7\n"batch-size" = 9\n')
    config = Config.from_toml(tmp_path / "a.toml", epochs=8)
    assert (config.epochs, config.batch_size, config.given) == (8, 9, {"epochs", "batch_size"})
    assert config.data == "builtin"


def test_the_command_line_and_python_make_the_same_configuration(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("lr = 0.1\nseed = 4\n")
    words = ["--config", str(tmp_path / "a.toml"), "--seed", "5", "--batch_size", "3", "--human-budget=auto"]
    typed = parse(words)
    made = Config.from_toml(
        tmp_path / "a.toml", config=str(tmp_path / "a.toml"), seed=5, batch_size=3, human_budget="auto"
    )
    assert typed == made
    assert typed.given == made.given


def test_what_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = Config(
        data="cub200", root="archives", weights="a.pth", criterion="mine.py:f", generator="package.module:g"
    ).with_absolute_paths()
    assert here.data == "cub200"
    assert here.root == str(tmp_path / "archives")
    assert here.weights == str(tmp_path / "a.pth")
    assert here.criterion == f"{tmp_path / 'mine.py'}:f"
    assert here.generator == "package.module:g"
    own = Config(class_weights="w.toml", augment="mine.py:f").with_absolute_paths()
    assert (own.class_weights, own.augment) == (str(tmp_path / "w.toml"), f"{tmp_path / 'mine.py'}:f")
    words = Config(class_weights="balanced", augment="color+turn", weights="auto").with_absolute_paths()
    assert (words.class_weights, words.augment, words.weights) == ("balanced", "color+turn", "auto")
    assert Config(weights="IMAGENET1K_V1").with_absolute_paths().weights == "IMAGENET1K_V1"
    assert Config(data="./cub200").with_absolute_paths().data == str(tmp_path / "cub200")
