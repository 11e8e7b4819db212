"""Grid files: what they make, and what they are refused for, with the line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import sal_fast
from sal_fast.cli import main
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.sweep import grid
from sal_fast.sweep.sharing import shared_rounds


def configs(text: str) -> list[Config]:
    return grid.parse_grid("g", "g.toml", text).configs(Path("/out"))


def named(config: Config) -> str:
    return config.run_folder.name


def test_every_combination() -> None:
    got = configs(
        'data = ["builtin", "./cats.csv"]\nregime = ["b1", "sal"]\ncriterion = ["random", "badge"]\n'
        'probe = ["cam", "gradcam"]\narch = ["resnet18", "resnet34"]\nhuman-budget = [0.1, 0.2]\n'
        "seed = [0, 1, 2]\nepochs = 3\n"
    )
    assert len(got) == len({named(config) for config in got}) == 2**6 * 3
    assert {config.epochs for config in got} == {3}
    assert named(got[0]) == "builtin-b1-random-cam-resnet18-h0.1-s0"
    assert got[0].out == "/out/builtin-b1-random-cam-resnet18-h0.1-s0"
    assert got[-1].data == str(Path("cats.csv").resolve())
    assert named(got[-1]) == "cats-sal-badge-gradcam-resnet34-h0.2-s2"
    assert {config.preset for config in got} == {"builtin", "own"}


def test_a_run_is_what_run_makes_of_the_same_options() -> None:
    (config,) = configs('data = "builtin"\nregime = "tait"\nseed = 7\n')
    out = "/out/builtin-tait-margin-cam-resnet18-h0.2-s7"
    assert config == Config.of({"data": "builtin", "regime": "tait", "seed": 7, "out": out})


def test_names_stay_when_a_list_gets_longer() -> None:
    before = {named(config) for config in configs('regime = ["b1"]\nseed = 0\n')}
    longer = 'regime = ["b1", "sal"]\nseed = [0, 1]\nprobe = ["cam", "gradcam"]\n'
    after = {named(config) for config in configs(longer)}
    assert before < after


def test_files_are_named_from_the_root() -> None:
    (one,) = configs('weights = "a.pth"\nteacher_weights = "b.pth"\nregime = "tait"\n')
    assert one.weights == str(Path("a.pth").resolve())
    assert one.teacher_weights == str(Path("b.pth").resolve())
    (named_one,) = configs('teacher_weights = "DEFAULT"\n')
    assert named_one.teacher_weights == "DEFAULT"


def test_items_bring_options_along() -> None:
    got = configs(
        'root = "/data/all"\nepochs = 5\n'
        'data = ["builtin", "cub200", { data = "ham10000", root = "/data/ham", epochs = 9 }]\n'
        'arch = ["resnet50", { arch = "swin_t", weights = "IMAGENET1K_V1" }]\n'
    )
    told = [(config.data, config.root, config.epochs, config.arch, config.weights) for config in got]
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
    got = configs(
        'regime = ["b2", { regime = "tait", alpha = 0.25 }, { regime = "b1", alpha = "own" }]\n'
        "seed = [0, 1]\n"
    )
    assert [(named(config).removeprefix("builtin-"), config.alpha) for config in got[::2]] == [
        ("b2-margin-cam-resnet18-h0.2-s0", None),
        ("tait-margin-cam-resnet18-h0.2-a0.25-s0", 0.25),
        ("b1-margin-cam-resnet18-h0.2-s0", None),
    ]
    got = configs('regime = ["b1", "b2"]\nalpha = ["own", 0.3, { alpha = 0.9, epochs = 25 }, 1]\n')
    assert [(config.regime, config.alpha) for config in got] == [
        ("b1", None), ("b1", 0.3), ("b1", 0.9), ("b2", None), ("b2", 0.3), ("b2", 1),
    ]  # fmt: skip
    assert [named(config).split("-h0.2")[1] for config in got[-3:]] == ["-s0", "-a0.3-s0", "-a1-s0"]
    (config,) = configs('regime = "b2"\nalpha = 0.9\n')
    assert config == configs('regime = "b2"\n')[0]
    with pytest.raises(InputError, match="two runs would be called builtin-b2-margin"):
        configs('regime = "b2"\nalpha = ["own", { alpha = 0.9, epochs = 3 }]\n')


def test_control_maps() -> None:
    """One run of a regime without maps of people, and no round that runs with other maps share."""
    got = configs('regime = ["b1", "sal", "tait"]\ncontrol_maps = ["none", "shuffled", "inverted"]\n')
    assert [named(config).removeprefix("builtin-") for config in got] == [
        "b1-margin-cam-resnet18-h0.2-s0",
        *(f"{regime}-margin-cam-resnet18-h0.2{maps}-s0" for regime in ("sal", "tait")
          for maps in ("", "-shuffled", "-inverted")),
    ]  # fmt: skip
    for one, other in combinations(got, 2):
        alike = one.regime != "b1" and one.control_maps == other.control_maps
        assert shared_rounds((one, one.plan(240)), (other, other.plan(240))) == (1 if alike else 0)


LISTS = 'data = ["builtin", "cub200"]\nregime = ["b1", "sal"]\nhuman_budget = [0.2, 0.05, 0.1]\n'


def test_leave_out() -> None:
    """builtin starts with 0.1, cub200 with 0.05."""

    def kept(rules: str) -> set[tuple[str, str, float]]:
        got = configs(LISTS + f"leave_out = {rules}\n")
        found = {(config.data, config.regime, config.human_budget) for config in got}
        assert len(found) == len(got)
        return found

    b1 = {(data, "b1", budget) for data in ("builtin", "cub200") for budget in (0.05, 0.1, 0.2)}
    sal = {(data, "sal", budget) for data, _, budget in b1}
    below, largest = {("builtin", "sal", 0.05)}, {one for one in b1 if one[2] == 0.2}
    assert kept("[]") == b1 | sal
    assert kept('"budget-below-start"') == b1 | sal - below
    assert kept('["budget-without-effect"]') == largest | sal
    assert kept('["budget-below-start", "budget-without-effect"]') == largest | sal - below


def test_budgets_that_are_words() -> None:
    """A grid takes them with any regime; the run says whether it does."""
    (number,) = configs('regime = "b2"\n')
    word = number.replace(human_budget="auto")
    assert grid.run_name(word) == "builtin-b2-margin-cam-resnet18-hauto-s0"
    axes = {"human_budget": [{"human_budget": budget} for budget in ("auto", 0.1, 0.2)]}
    made = grid.Grid("g", "g.toml", "", {}, axes, grid.RULES)
    assert made._is_left_out(word)
    assert not made._is_left_out(number)
    assert not made._is_left_out(word.replace(regime="sal"))


def test_where_a_machine_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        'data = ["builtin", "cub200", { data = "ham10000", root = "/data/ham" }]\n'
        'regime = ["b2", "segmenter"]\nweights = "IMAGENET1K_V1"\n'
    )
    monkeypatch.chdir(tmp_path)
    got = grid.parse_grid("g", "g.toml", text).configs(Path("/out"), grid.Place("sets", "~/w.pth", "/masks"))
    here, home = str(tmp_path / "sets/cub200"), str(Path("~/w.pth").expanduser())
    assert [(config.root, config.segmenter_masks) for config in got] == [
        (None, None), (None, "/masks/builtin"), (here, None), (here, "/masks/cub200"),
        ("/data/ham", None), ("/data/ham", "/masks/ham10000"),
    ]  # fmt: skip
    assert {config.weights for config in got} == {home}
    own = 'data = "cub200"\nroot = "/r"\nregime = "segmenter"\nsegmenter_masks = "/m"\n'
    (config,) = grid.parse_grid("g", "g.toml", own).configs(Path("/out"), grid.Place("/x", None, "/y"))
    assert (config.root, config.segmenter_masks, config.weights) == ("/r", "/m", "none")


def test_plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files become absolute, an object of a module stays, and a run's name has the object's."""
    monkeypatch.chdir(tmp_path)
    got = configs(
        'data = ["sets.py:mine", { data = "far.sets:theirs", root = "pictures" }]\nroot = "here"\n'
        'arch = ["resnet18", "~/net.py:small"]\ncriterion = ["margin", "deep/q.py:f"]\n'
        'regime = { regime = "sal", generator = "maps.py:draw" }\n'
    )
    assert [named(config).removesuffix("-h0.2-s0") for config in got] == [
        f"{data}-sal-{criterion}-cam-{arch}"
        for data in ("mine", "theirs")
        for arch in ("resnet18", "small")
        for criterion in ("margin", "f")
    ]
    assert {config.data for config in got} == {f"{tmp_path}/sets.py:mine", "far.sets:theirs"}
    assert {config.root for config in got} == {f"{tmp_path}/here", f"{tmp_path}/pictures"}
    assert {config.arch for config in got} == {"resnet18", f"{Path('~').expanduser()}/net.py:small"}
    assert {config.criterion for config in got} == {"margin", f"{tmp_path}/deep/q.py:f"}
    assert {config.generator for config in got} == {f"{tmp_path}/maps.py:draw"}


EXTRA = """
    momentum: float = option(0.9, affects="training", axis=True)
    \"\"\"Made up.\"\"\"
    sketch: bool = option(False, affects="maps")
    \"\"\"Made up.\"\"\"
    width: int = option(1, affects="network", axis=True)
    \"\"\"Made up.\"\"\"
    pager: str = option("less", affects="", not_in_a_grid="a sweep shows no pages")
    \"\"\"Made up.\"\"\"
"""


@pytest.fixture
def with_new_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The experiment and sweeps anew, as if a maintainer had added fields to `Config` and nothing else."""
    text, below = Path(sys.modules[Config.__module__].__file__ or "").read_text(), "    preset: str = option("
    assert text.count(below) == 1
    (tmp_path / "config.py").write_text(text.replace(below, EXTRA.lstrip("\n") + below))
    for package in ("experiment", "sweep"):  # back to what they are now when the test ends
        monkeypatch.setattr(sal_fast, package, getattr(sal_fast, package))
    for name in [name for name in sys.modules if name.startswith(("sal_fast.experiment", "sal_fast.sweep"))]:
        monkeypatch.delitem(sys.modules, name)
    spec = importlib.util.spec_from_file_location("sal_fast.experiment.config", tmp_path / "config.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)


@pytest.mark.usefixtures("with_new_options")
def test_a_new_option_needs_no_edit_here() -> None:
    grids = importlib.import_module("sal_fast.sweep.grid")
    plan = importlib.import_module("sal_fast.sweep.plan")
    sharing = importlib.import_module("sal_fast.sweep.sharing")

    def made(text: str) -> list[Any]:
        return grids.parse_grid("g", "g.toml", text).configs(Path("/out"))

    got = made('data = "builtin"\nmomentum = [0.9, 0.5]\nwidth = [1, 2]\n')
    tails = [named(config).removeprefix("builtin-sal-margin-cam-resnet18-h0.2") for config in got]
    assert tails == ["-s0", "-width2-s0", "-momentum0.5-s0", "-momentum0.5-width2-s0"]
    plans = [config.plan(100) for config in got]
    keys = {sharing.common_key(config, rounds) for config, rounds in zip(got, plans, strict=True)}
    assert len(keys) == 4
    plain, sketched = made('regime = ["b2", { regime = "sal", sketch = true }]\n')
    rounds = plain.plan(100)
    assert sharing.shared_rounds((plain, rounds), (sketched, rounds)) > 0
    assert "width" in plan.NETWORK
    assert "width" in plan.PACE
    assert not {"momentum", "sketch", "pager"} & {*plan.NETWORK, *plan.PACE}
    for text, said in (
        ('pager = "more"', "line 1: pager does not go into a grid: a sweep shows no pages"),
        ("sketch = [true, false]", r"sketch is a list, expected one value; lists go with .*momentum, width"),
    ):
        with pytest.raises(sal_fast.InputError, match=said):
            made(text)


REFUSED = {
    'regime = ["b1"]\n\nepoch = 3': "g.toml, line 3: unknown option 'epoch'; did you mean 'epochs'?",
    'criterion = ["margin",\n "margn"]': "g.toml, line 1: unknown criterion 'margn'; did you mean 'margin'?",
    "seed = 0\nregime = []": "g.toml, line 2: regime is an empty list; name at least one value",
    "seed = [0, 1, 0]": "g.toml, line 1: seed lists 0 twice",
    "human_budget = [1, 1.0]": "g.toml, line 1: human_budget lists 1 twice",
    'alpha = ["own", 0.3, "own"]': "g.toml, line 1: alpha lists own twice",
    'alpha = ["mine"]': "g.toml, line 1: alpha: expected a number, got 'mine'",
    "seed = 0\nalpha = [0.5, 2]": "g.toml, line 2: alpha 2: expected 0 to 1",
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
    "alpha = 2": "g.toml, line 1: alpha 2: expected 0 to 1",
    'regime = "b1"\nhuman_budget = "auto"': "g.toml: --human-budget auto: regime 'b1' has no model to try",
    'seed = [0, 1]\nregime = "b1"\ngenerator = "a.py:f"': "g.toml (seed 0): --generator a.py:f: regime 'b1'",
    'criterion = ["a.py:f", "b.py:f"]': "would be called builtin-sal-f-cam-resnet18-h0.2-s0 (criterion ",
    'criterion = ["margin", "b.py:margin"]': "(criterion margin and ",
    'data = ["a/cats", "b/cats"]': "two runs would be called cats-sal-margin-cam-resnet50-h0.2-s0 (data ",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_refused(text: str) -> None:
    with pytest.raises(InputError) as error:
        configs(text)
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


def test_runs_of_a_sweep_end_alike() -> None:
    with pytest.raises(
        InputError, match="stop_fraction auto: the runs of a sweep are compared and share rounds"
    ):
        configs('regime = ["b1", "sal"]\nstop-fraction = "auto"\n')
