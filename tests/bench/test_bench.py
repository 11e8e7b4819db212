"""Every benchmark runs, its result has one form, and what cannot be measured is refused early."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_sizes import SMALL

from sal_fast import bench, ops
from sal_fast._util import progress
from sal_fast.bench import clock, figure, measure, result, suite, table, usual
from sal_fast.bench.cases import saliency, selection
from sal_fast.bench.suite import Benchmark, Case, Ratio, Setup
from sal_fast.cli import main
from sal_fast.data import builtin
from sal_fast.errors import InputError

COMMITTED = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("*.json"))
COMMON = {"rounds": 1, "device": "cpu", "threads": 1}
RATIOS = {
    "data": ["first epoch, none / augment none"],
    "step": ["saliency step / cross-entropy step", "saliency step, eager torch / saliency step"],
    "score": ["bare forward loop / score"],
    "select": ["badge, numpy / badge", "core-set, cdist / core-set", "badge, gradients / badge"],
    "run": ["train / whole run", "evaluate / whole run"],
    "growth": ["240 / 30", "24 / 3"],
    "predict": ["predict / decode, bare forward loop", "DataLoader, torchvision / predict"],
    "figures": ["graded / forward", "masks / forward"],
    "cyborg_loss": ["eager / sal_fast", "cross_entropy / sal_fast"],
    "head_step": ["ops / sal_fast", "eager / sal_fast"],
    "kcenter": ["cdist / sal_fast", "differences / sal_fast"],
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Repeat and compile nothing, rotate through little memory, and make a small built-in set."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(clock, "CACHE_BYTES", 1 << 16)
    monkeypatch.setattr(clock, "SHORTEST", 1e-6)
    monkeypatch.setenv("SAL_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(builtin, "SIZES", {"train": 8, "val": 1, "test": 2})


def words(name: str, **more: Any) -> list[str]:
    """The command of a benchmark at a small size."""
    options = {**SMALL[name], **COMMON, **more}
    return ["bench", name, *(f"--{key.replace('_', '-')}={value}" for key, value in options.items())]


@pytest.mark.parametrize("name", suite.NAMES)
def test_every_benchmark(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made" / "result.json"
    assert main(words(name, out=out)) == 0
    said = capsys.readouterr().out
    assert f"{name} on cpu" in said
    document = result.read(out)
    assert (document["bench"], document["rounds"], document["threads"]) == (name, 1, 1)
    assert document["options"].items() >= SMALL[name].items()
    assert all(one["ms_p10"] <= one["ms"] <= one["ms_p90"] for one in document["results"])
    assert {ratio["name"] for ratio in document["ratios"]} >= set(RATIOS.get(name, []))
    floors = [one["bytes"] for one in document["results"]]
    shares = [one["share_of_copy"] for one in document["results"]]
    assert all((floor is None) == (share is None) for floor, share in zip(floors, shares, strict=True))
    if floors[0] is not None:
        one = document["results"][0]
        assert one["share_of_read"] == pytest.approx(
            1e-9 * one["bytes"] / (1e-3 * one["ms"]) / document["read_gb_s"]
        )


@pytest.mark.parametrize("name", ["score", "kcenter"])
def test_figures(name: str, tmp_path: Path) -> None:
    out, plot = tmp_path / "result.json", tmp_path / "figure.png"
    assert main(words(name, out=out, plot=plot)) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert main(["bench", "plot", str(out), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "result.png").read_bytes() == plot.read_bytes()


def test_skip_leaves_variants_out_but_never_ours(tmp_path: Path) -> None:
    found = bench.run("badge", **SMALL["badge"], rounds=1, device="cpu", skip="s")
    assert {result["variant"] for result in found["results"]} == {"sal_fast", "numpy"}
    assert {ratio["name"] for ratio in found["ratios"]} == {"numpy / sal_fast"}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_committed_results_can_be_read(path: Path) -> None:
    if path.name.startswith("kernels-"):
        with pytest.raises(InputError, match="not a result"):
            result.read(path)
        return
    document = result.read(path)
    assert all(sheet.rows for sheet in table.sheets(document))
    assert figure.bars(document).axes


def test_ops_need_torch_and_numpy_alone() -> None:
    """A machine with a GPU may lack the libraries of the experiment and of the command line."""
    code = (
        "import sys\n"
        "for name in ('PIL', 'filelock', 'jinja2', 'matplotlib', 'polars', 'psutil', 'rich', 'tyro'):\n"
        "    sys.modules[name] = None\n"
        "from sal_fast import bench\n"
        "from sal_fast.bench import clock, table\n"
        "clock.CACHE_BYTES = 1 << 16\n"
        "document = bench.run('badge', rows=200, classes=5, columns=16, picks=12, rounds=1, device='cpu')\n"
        "print(*(sheet.markdown() for sheet in table.sheets(document)))\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| 12-picks |" in done.stdout


def test_a_step_is_asked_for_limits_at_one_size_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def limits(**options: Any) -> dict[str, Any]:
        monkeypatch.setattr(clock, "in_turn", lambda timers, *rest: {name: [1.0] for name in timers})
        document = bench.run("step", **{**SMALL["step"], **COMMON, **options})
        return {ratio["name"]: (ratio["at_most"], ratio["at_least"]) for ratio in document["ratios"]}

    asked = limits(image_size=64)
    assert asked["saliency step / cross-entropy step"] == (1.15, None)
    assert asked["two models from the store / saliency step from the store"] == (2, None)
    assert limits()["saliency step / cross-entropy step"] == (None, None)


def test_bf16_and_a_trace(tmp_path: Path) -> None:
    threads, trace = torch.get_num_threads(), tmp_path / "trace.json"
    assert main(words("score", precision="bfloat16", trace=trace)) == 0
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert names >= {"score", "bare forward loop", "aten::softmax"}
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["step", "--rounds", "0"], "--rounds 0: expected at least 1"),
        (["score", "--threads", "0"], "--threads 0: expected at least 1"),
        (["data", "--images", "0"], "--images 0: expected at least 1"),
        (["ssim", "--side", "0"], "--side 0: expected at least 1"),
        (["select", "--classes", "1"], "--classes 1: expected at least 2"),
        (["data", "--workers", "-1"], "--workers -1: expected at least 0"),
        (["select", "--out", "{folder}"], "a folder; expected the name of a JSON file"),
        (["select", "--out", "{folder}/file/result.json"], "is not a folder that can be written to"),
        (["crop", "--plot", "figure.svg"], "expected the name of a PNG file, .png"),
        (
            ["badge", "--only", "forward", "--rows", "9", "--picks", "2"],
            "bench badge has no case of such a name",
        ),
        (["step", "--image-size", "32"], "too few to compare maps at"),
        (["step", "--arch", "resnet19"], "did you mean 'resnet18'?"),
        (["run", "--criterion", "margins"], "did you mean 'margin'?"),
        (["run", "--trace", "trace.json"], "too long for a trace"),
        (["score", "--device", "abacus"], "--device abacus"),
        (["steps"], "steps"),
        (["plot"], "name at least one result file"),
        (["plot", "{folder}/file"], "cannot be read"),
        (["table", "{folder}/old.json"], "not a result of `sal-fast bench`"),
    ],
)
def test_refused_before_anything_is_measured(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(clock, "Timer", None)
    (tmp_path / "file").write_text("-")
    (tmp_path / "old.json").write_text('{"schema": 2, "bench": "data"}')
    assert main(["bench", *(word.format(folder=tmp_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    timed = {"ours": [1.0, 2.0, 8.0], "theirs": [2.0, 4.0, 4.0]}
    monkeypatch.setattr(clock, "in_turn", lambda *given: timed)
    ratios = [
        Ratio("theirs", "ours", at_least=1.5),
        Ratio("ours", "theirs", at_most=0.4),
        Ratio("ours", "theirs", times=2),
        Ratio("ours", "ours"),
    ]
    case = Case("", dict.fromkeys(timed, lambda: None), ratios=ratios, items=4)

    def step(setup: Setup) -> Iterator[Case]:
        yield case

    return measure.measure(Benchmark(step), Setup(device="cpu", rounds=3))


def test_ratios_are_of_the_same_round(document: dict[str, Any]) -> None:
    at_least, at_most, twice, _ = document["ratios"]
    assert at_least["value"] == 2  # of 2, 2 and 0.5
    assert at_least["p10"] == pytest.approx(0.8)
    assert result.held(at_least) is True
    assert at_most["value"] == 0.5
    assert result.held(at_most) is False
    assert (twice["name"], twice["value"], result.held(twice)) == ("2 x ours / theirs", 1, None)
    ours = document["results"][0]
    assert (ours["ms"], ours["per_second"]) == (2000, 2)
    assert ours["ms_p10"] == pytest.approx(1200)


def test_one_form(document: dict[str, Any], tmp_path: Path) -> None:
    result.check(document)
    for change in (
        {"schema": 2},
        {"rounds": "3"},
        {"more": 0},
        {"results": [{"variant": "ours"}]},
        {"ratios": [{**document["ratios"][0], "value": None}]},
        {"figures": {"idle": "none"}},
    ):
        with pytest.raises(ValueError, match=r"must be|expected the fields"):
            result.check(copy.deepcopy(document) | change)


def test_where_a_result_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setenv("COMMIT", "abc")
    monkeypatch.setenv("CSRC_TREE", "def")
    assert result.surroundings(cpu).items() >= {"commit": "abc", "csrc_tree": "def", "driver": None}.items()


def test_tables(document: dict[str, Any]) -> None:
    times, ratios = table.sheets(document)
    assert times.rows[0] == ["ours", "2,000", "1,200 to 6,800", "2"]
    assert ratios.rows[1] == ["ours / theirs", "0.5", "0.5 to 1.7", "at most 0.4: missed"]
    assert "| ours / ours | 1 |  |  |" in ratios.markdown()


def test_a_table_of_ops_has_a_row_a_case() -> None:
    document = bench.run("kcenter", **SMALL["kcenter"], **COMMON)
    (sheet,) = table.sheets(document)
    assert sheet.columns == ["case", "sal_fast", "of read", "cdist", "differences"]
    assert [row[0] for row in sheet.rows] == ["12-picks"]
    assert all(cell.endswith(("ms", "%", "x")) for cell in sheet.rows[0][1:])


def test_figure_of_held_missed_and_far_ratios(document: dict[str, Any]) -> None:
    far = {**document["ratios"][3], "p10": None}
    document["ratios"] += [{**far, "name": f"{value}", "value": value, "p90": None} for value in (30, 900)]
    drawn = figure.bars(document)
    words = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert words == ["held", "missed", "nothing asked", "10 to 90 % of rounds", "asked"]
    axes = drawn.axes[0]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.texts] == ["2", "0.5", "1", "1", "30", "900"]


def test_no_speed_of_a_wrong_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong results of each kind of check: the usual code, float64, and the criteria's picks."""
    monkeypatch.setattr(usual, "cyborg_loss", lambda *given, **options: torch.tensor(99.0))
    with pytest.raises(AssertionError, match="not close"):
        bench.run("step", **SMALL["step"], **COMMON)
    monkeypatch.setattr(usual, "most_uncertain", lambda logits, k, kind: torch.arange(k))
    with pytest.raises(AssertionError, match="usual loop"):
        bench.run("select", **SMALL["select"], **COMMON)


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("uncertainty", "uncertainty"),
        ("cam_head", "cam_head"),
        ("minmax_normalize", "minmax_normalize"),
        ("saliency_loss", "saliency_loss"),
        ("ssim", "ssim"),
        ("cyborg_loss", "cyborg_loss"),
        ("head_step", "head_step"),
    ],
)
def test_no_speed_of_an_op_that_float64_contradicts(
    name: str, op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(ops, op)

    def wrong(*given: Any, **options: Any) -> Any:
        found = right(*given, **options)
        if given[0].dtype == torch.float64:
            return found
        return (
            1.1 * found if isinstance(found, torch.Tensor) else type(found)(*(1.1 * part for part in found))
        )

    monkeypatch.setattr(ops, op, wrong)
    with pytest.raises(AssertionError, match="not close"):
        bench.run(name, **SMALL[name], **COMMON)


@pytest.mark.parametrize("name", ["topn_dice", "crop", "kcenter", "badge", "probes"])
def test_no_speed_of_a_wrong_choice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    functions = {"crop": "crop_images", "probes": "minmax_normalize"}
    op = functions.get(name, name)
    right = getattr(ops, op)
    calls = []

    def wrong(*given: Any, **options: Any) -> Any:
        calls.append(0)
        found = right(*given, **options)
        if isinstance(found, ops.TopnDice):
            return found._replace(hits=found.hits + 9 * len(calls))
        return found.flip(0) + len(calls)

    monkeypatch.setattr(ops, op, wrong)
    with pytest.raises((AssertionError, IndexError)):
        bench.run(name, **SMALL[name], **COMMON)


def test_gradients_that_memory_does_not_allow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(selection, "free_memory", lambda device: 0)
    document = bench.run("select", **SMALL["select"], **COMMON)
    assert "left out" in caplog.text
    assert not any("gradients" in one["variant"] for one in document["results"])


def test_a_large_pool_is_measured_once() -> None:
    found = selection.once("badge", 60, "clusters", 4, 8)
    assert found["picks_per_second"] == pytest.approx(60 / found["seconds"])
    assert found["peak_over_inputs"] >= 0


def test_a_bar_inside_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, a measured function may show progress of its own."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.bar("outer", 2) as outer, progress.bar("inner", 3) as inner:
        inner()
        outer()
    with progress.bar("next", 1) as advance:
        advance()


def test_masks_of_a_benchmark_are_discs() -> None:
    _, far = saliency.maps(suite.OpSetup(device="cpu"), 0, 50, 7, 64)
    covered = (far < 1).double().mean((1, 2))
    assert 0.05 < covered.min() < covered.max() < 0.3
