"""Grid files: what they make, and what they are refused for, with the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sal_fast.cli import main
from sal_fast.errors import InputError
from sal_fast.experiment import resolve
from sal_fast.sweep import grid


def runs(text: str) -> list[grid.Run]:
    return grid.parse("g", "g.toml", text).runs(Path("/out"))


def test_every_combination() -> None:
    got = runs(
        'data = ["builtin", "./cats.csv"]\nregime = ["b1", "sal"]\ncriterion = ["random", "badge"]\n'
        'probe = ["cam", "gradcam"]\narch = ["resnet18", "resnet34"]\nhuman-budget = [0.1, 0.2]\n'
        "seed = [0, 1, 2]\nepochs = 3\n"
    )
    assert len(got) == len({run.name for run in got}) == 2**6 * 3
    assert {run.config.epochs for run in got} == {3}
    assert got[0].name == "builtin-b1-random-cam-resnet18-h0.1-s0"
    assert got[0].config.out == "/out/builtin-b1-random-cam-resnet18-h0.1-s0"
    assert got[-1].config.data == str(Path("cats.csv").resolve())
    assert got[-1].name == "cats-sal-badge-gradcam-resnet34-h0.2-s2"
    assert {run.config.preset for run in got} == {"builtin", "cyborg"}


def test_a_run_is_what_run_makes_of_the_same_options() -> None:
    (run,) = runs('data = "builtin"\nregime = "tait"\nseed = 7\n')
    asked = resolve({"data": "builtin", "regime": "tait", "seed": 7, "out": f"/out/{run.name}"})
    assert run.config == asked


def test_names_stay_when_a_list_gets_longer() -> None:
    before = {run.name for run in runs('regime = ["b1"]\nseed = 0\n')}
    after = {run.name for run in runs('regime = ["b1", "sal"]\nseed = [0, 1]\nprobe = ["cam", "gradcam"]\n')}
    assert before < after


def test_files_are_named_from_the_root() -> None:
    (one,) = runs('weights = "a.pth"\nteacher_weights = "b.pth"\nregime = "tait"\n')
    assert one.config.weights == str(Path("a.pth").resolve())
    assert one.config.teacher_weights == str(Path("b.pth").resolve())
    (named,) = runs('teacher_weights = "DEFAULT"\n')
    assert named.config.teacher_weights == "DEFAULT"


def test_items_bring_options_along() -> None:
    got = runs(
        'root = "/data/all"\nepochs = 5\n'
        'data = ["builtin", "cub200", { data = "ham10000", root = "/data/ham", epochs = 9 }]\n'
        'arch = ["resnet50", { arch = "swin_t", weights = "IMAGENET1K_V1" }]\n'
    )
    told = [(c.data, c.root, c.epochs, c.arch, c.weights) for c in (run.config for run in got)]
    assert told == [
        ("builtin", None, 5, "resnet50", "none"),
        ("builtin", None, 5, "swin_t", "IMAGENET1K_V1"),
        ("cub200", "/data/all", 5, "resnet50", "none"),
        ("cub200", "/data/all", 5, "swin_t", "IMAGENET1K_V1"),
        ("ham10000", "/data/ham", 9, "resnet50", "none"),
        ("ham10000", "/data/ham", 9, "swin_t", "IMAGENET1K_V1"),
    ]


REFUSED = {
    'regime = ["b1"]\n\nepoch = 3': "g.toml, line 3: unknown option 'epoch'; did you mean 'epochs'?",
    'criterion = ["margin",\n "margn"]': "g.toml, line 1: unknown criterion 'margn'; did you mean 'margin'?",
    "seed = 0\nregime = []": "g.toml, line 2: regime is an empty list; name at least one value",
    "seed = [0, 1, 0]": "g.toml, line 1: seed lists 0 twice",
    "human_budget = [1, 1.0]": "g.toml, line 1: human_budget lists 1.0 twice",
    "epochs = [1, 2]": "g.toml, line 1: epochs is a list, expected one value; lists go with data, regime,",
    'seed = ["one"]': "g.toml, line 1: seed: expected a whole number, got 'one'",
    "lr = true": "g.toml, line 1: lr: expected a number, got True",
    'out = "here"': "g.toml, line 1: out does not go into a grid: the sweep's --out",
    'config = "x.toml"': "g.toml, line 1: config does not go into a grid",
    "start-fraction = 0.1\nstart_fraction = 0.2": "g.toml, line 2: start_fraction stands twice",
    'regime = "sal"\nregime = "b1"\nseed = 0': "g.toml is not TOML: Cannot overwrite a value (at line 2",
    'regime = ["b1"': "g.toml is not TOML",
    'device = "cuda:1"': "g.toml, line 1: device 'cuda:1': Ray gives every run its GPU",
    'arch = [{ weights = "x.pth" }]': "g.toml, line 1: {'weights': 'x.pth'} in the list arch",
    'arch = [{ arch = "resnet18", seed = 1 }]': "g.toml, line 1: seed in a table of the list arch",
    'arch = [{ arch = "resnet18", epoch = 1 }]': "g.toml, line 1: unknown option 'epoch'",
    'arch = [{ arch = "resnet18", lr = 1 }]\nprobe = [{ probe = "cam", lr = 2 }]': "lr is 2 with probe 'cam'",
    'regime = ["b1", "segmenter"]': "g.toml (regime segmenter): regime 'segmenter' needs --segmenter-masks",
    "alpha = 2": "g.toml (): --alpha 2: expected 0 to 1",
    'data = ["a/cats", "b/cats"]': "two runs would be called cats-sal-margin-cam-resnet50-h0.2-s0 (data ",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_refused(text: str) -> None:
    with pytest.raises(InputError) as error:
        runs(text)
    assert REFUSED[text] in str(error.value)
    assert "\n" not in str(error.value)


def test_presets_are_grids(tmp_path: Path) -> None:
    assert grid.presets() == ["builtin-small"]
    got = grid.read("builtin-small").runs(tmp_path)
    assert len(got) == 8
    assert {run.config.data for run in got} == {"builtin"}


def test_names_of_grids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "builtin-smal"]) == 2
    assert "unknown sweep 'builtin-smal'; did you mean 'builtin-small'?" in capsys.readouterr().err
    assert main(["sweep", str(tmp_path / "none.toml")]) == 2
    assert "grid file not found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus-per-run", "2"], "--gpus-per-run 2: expected 0 to 1"),
        (["--cpus-per-run", "0"], "--cpus-per-run 0: expected at least 1"),
        (["--retries", "-1"], "--retries -1: expected at least 0"),
        (["--address", "ray://head:10001"], "--address ray://head:10001: expected host:port or auto"),
    ],
)
def test_options_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "builtin-small", *words]) == 2
    assert said in capsys.readouterr().err
