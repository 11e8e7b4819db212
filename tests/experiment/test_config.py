"""Defaults, presets, TOML and the command line fill one dataclass; what cannot be is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from sal_fast.cli.run import parse
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
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
    assert config.preset == "cyborg"
    assert (config.epochs, config.lr, config.batch_size, config.lr_step, config.image_size) == (
        50,
        0.005,
        20,
        12,
        224,
    )
    assert (config.start_fraction, config.query_fraction, config.human_budget) == (0.05, 0.05, 0.2)
    assert config.run_folder.name == "pool-sal-margin-s0"


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
        ({"arch": "vgg"}, "unknown arch 'vgg'"),
        ({"preset": "big"}, "unknown preset 'big'"),
        ({"epochs": 0}, "--epochs 0: expected at least 1"),
        ({"lr": -1.0}, "--lr -1: expected a positive number"),
        ({"alpha": 1.1}, "--alpha 1.1: expected 0 to 1"),
        ({"seed": -1}, "--seed -1"),
        ({"regime": "segmenter"}, "needs --segmenter-masks"),
        ({"cam_class": "labeled"}, "unknown cam class 'labeled'; did you mean 'labelled'"),
        ({"arch": "resnet18", "cam_layer": "conv3"}, "its last convolution is layer4.1.conv2"),
        ({"arch": "resnet50", "cam_layer": "layr3"}, "no such layer; the nearest is 'layer3'"),
        ({"arch": "resnet50", "cam_layer": "conv3", "compile": True}, "which --compile closes"),
    ],
)
def test_values_refused(values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Config.of(values).check()


def test_every_field_is_documented() -> None:
    source = Path(str(__import__("sal_fast.experiment.config", fromlist=["x"]).__file__)).read_text()
    body = source[source.index("class Config") : source.index("def check")]
    for name in Config.__dataclass_fields__:
        after = body.split(f"    {name}: ", 1)[1].splitlines()[1]
        assert after.strip().startswith('"""'), name
