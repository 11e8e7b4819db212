"""Grid files: what they make, and what they are refused for, with the line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from sal_fast.cli import main
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
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
    asked = Config.of({"data": "builtin", "regime": "tait", "seed": 7, "out": f"/out/{run.name}"})
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


def test_alpha() -> None:
    """In the name where it is not the regime's own; the regime's number is the regime's own."""
    got = runs(
        'regime = ["b2", { regime = "tait", alpha = 0.25 }, { regime = "b1", alpha = "own" }]\n'
        "seed = [0, 1]\n"
    )
    assert [(run.name.removeprefix("builtin-"), run.config.alpha) for run in got[::2]] == [
        ("b2-margin-cam-resnet18-h0.2-s0", None),
        ("tait-margin-cam-resnet18-h0.2-a0.25-s0", 0.25),
        ("b1-margin-cam-resnet18-h0.2-s0", None),
    ]
    got = runs('regime = ["b1", "b2"]\nalpha = ["own", 0.3, { alpha = 0.9, epochs = 25 }, 1]\n')
    assert [(run.config.regime, run.config.alpha) for run in got] == [
        ("b1", None), ("b1", 0.3), ("b1", 0.9), ("b2", None), ("b2", 0.3), ("b2", 1),
    ]  # fmt: skip
    assert [run.name.split("-h0.2")[1] for run in got[-3:]] == ["-s0", "-a0.3-s0", "-a1-s0"]
    (run,) = runs('regime = "b2"\nalpha = 0.9\n')
    assert run == runs('regime = "b2"\n')[0]
    with pytest.raises(InputError, match="two runs would be called builtin-b2-margin"):
        runs('regime = "b2"\nalpha = ["own", { alpha = 0.9, epochs = 3 }]\n')


LISTS = 'data = ["builtin", "cub200"]\nregime = ["b1", "sal"]\nhuman_budget = [0.2, 0.05, 0.1]\n'


def test_leave_out() -> None:
    """builtin starts with 0.1, cub200 with 0.05."""

    def kept(rules: str) -> set[tuple[str, str, float]]:
        configs = [run.config for run in runs(LISTS + f"leave_out = {rules}\n")]
        found = {(config.data, config.regime, config.human_budget) for config in configs}
        assert len(found) == len(configs)
        return found

    b1 = {(data, "b1", budget) for data in ("builtin", "cub200") for budget in (0.05, 0.1, 0.2)}
    sal = {(data, "sal", budget) for data, _, budget in b1}
    below, largest = {("builtin", "sal", 0.05)}, {one for one in b1 if one[2] == 0.2}
    assert kept("[]") == b1 | sal
    assert kept('"budget-below-start"') == b1 | sal - below
    assert kept('["budget-without-effect"]') == largest | sal
    assert kept('["budget-below-start", "budget-without-effect"]') == largest | sal - below


def test_budgets_that_are_words() -> None:
    """As far as a grid goes: whether a run takes them is the run's to say."""
    (run,) = runs('regime = "b2"\n')
    word: dict[str, Any] = {"human_budget": "auto"}
    config = dataclasses.replace(run.config, **word)
    assert grid.run_name(config) == "builtin-b2-margin-cam-resnet18-hauto-s0"
    axes = {"human_budget": [{"human_budget": budget} for budget in ("auto", 0.1, 0.2)]}
    made = grid.Grid("g", "g.toml", "", {}, axes, grid.RULES)
    assert made._is_left_out(config)
    assert not made._is_left_out(run.config)
    assert not made._is_left_out(dataclasses.replace(config, regime="sal"))


def test_where_a_machine_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        'data = ["builtin", "cub200", { data = "ham10000", root = "/data/ham" }]\n'
        'regime = ["b2", "segmenter"]\nweights = "IMAGENET1K_V1"\n'
    )
    monkeypatch.chdir(tmp_path)
    got = grid.parse("g", "g.toml", text).runs(Path("/out"), grid.Place("sets", "~/w.pth", "/masks"))
    here, home = str(tmp_path / "sets/cub200"), str(Path("~/w.pth").expanduser())
    assert [(run.config.root, run.config.segmenter_masks) for run in got] == [
        (None, None), (None, "/masks/builtin"), (here, None), (here, "/masks/cub200"),
        ("/data/ham", None), ("/data/ham", "/masks/ham10000"),
    ]  # fmt: skip
    assert {run.config.weights for run in got} == {home}
    own = 'data = "cub200"\nroot = "/r"\nregime = "segmenter"\nsegmenter_masks = "/m"\n'
    (run,) = grid.parse("g", "g.toml", own).runs(Path("/out"), grid.Place("/x", None, "/y"))
    assert (run.config.root, run.config.segmenter_masks, run.config.weights) == ("/r", "/m", "none")


REFUSED = {
    'regime = ["b1"]\n\nepoch = 3': "g.toml, line 3: unknown option 'epoch'; did you mean 'epochs'?",
    'criterion = ["margin",\n "margn"]': "g.toml, line 1: unknown criterion 'margn'; did you mean 'margin'?",
    "seed = 0\nregime = []": "g.toml, line 2: regime is an empty list; name at least one value",
    "seed = [0, 1, 0]": "g.toml, line 1: seed lists 0 twice",
    "human_budget = [1, 1.0]": "g.toml, line 1: human_budget lists 1 twice",
    'alpha = ["own", 0.3, "own"]': "g.toml, line 1: alpha lists own twice",
    'alpha = ["mine"]': "g.toml, line 1: alpha: expected a number, got 'mine'",
    "seed = 0\nalpha = [0.5, 2]": "g.toml (alpha 2): --alpha 2: expected 0 to 1",
    'leave-out = "budget-below-strat"': "g.toml, line 1: unknown rule 'budget-below-strat' in leave_out; did",
    'seed = 0\nleave_out = "budget-below-start"\nhuman_budget = 0.05': "line 2: leave_out leaves out every",
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
    'arch = [{ arch = "resnet18", seed = 1 }]\nseed = [1, 2]': "line 2: seed is 2 with seed 2, and 1 by anot",
    'arch = [{ arch = "resnet18", epoch = 1 }]': "g.toml, line 1: unknown option 'epoch'",
    'arch = [{ arch = "resnet18", lr = 1 }]\nprobe = [{ probe = "cam", lr = 2 }]': "lr is 2 with probe 'cam'",
    "alpha = 2": "g.toml (): --alpha 2: expected 0 to 1",
    'data = ["a/cats", "b/cats"]': "two runs would be called cats-sal-margin-cam-resnet50-h0.2-s0 (data ",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_refused(text: str) -> None:
    with pytest.raises(InputError) as error:
        runs(text)
    assert REFUSED[text] in str(error.value)
    assert "\n" not in str(error.value)


def test_names_of_grids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "smal"]) == 2
    assert "unknown sweep 'smal'; did you mean 'small'?" in capsys.readouterr().err
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
    assert main(["sweep", "small", *words]) == 2
    assert said in capsys.readouterr().err
