"""sal-fast bench: every benchmark runs, its result has one form, and what cannot be is refused early."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sal_fast._util import progress
from sal_fast.bench import plot, schema, select, timing, usual
from sal_fast.bench.timing import Options, Ratio
from sal_fast.cli import main
from sal_fast.data import builtin
from sal_fast.errors import InputError

TINY = {
    "data": ["--images", "33", "--workers", "0"],
    "ops": ["--batch-size", "2", "--image-size", "64", "--classes", "5", "--rows", "50"],
    "step": ["--batch-size", "2", "--image-size", "48", "--images", "5", "--classes", "3"],
    "score": ["--image-size", "48", "--images", "5", "--classes", "3"],
    "select": ["--rows", "60", "--classes", "4", "--features", "8", "--labelled", "5", "--k", "10"],
    "run": ["--epochs", "1", "--image-size", "48", "--criterion", "margin"],
}
RATIOS = {
    "data": ["first epoch, none / augment none"],
    "ops": ["cyborg_loss, eager / cyborg_loss", "crop_images, eager / crop_images"],
    "step": ["saliency step / cross-entropy step", "saliency step, eager torch / saliency step"],
    "score": ["bare forward loop / score"],
    "select": ["badge, numpy / badge", "core-set, cdist / core-set"],
    "run": ["train / whole run", "evaluate / whole run"],
}
COMMON = ["--rounds", "1", "--device", "cpu", "--threads", "1"]


def bench(name: str, *words: str) -> int:
    return main(["bench", name, *TINY[name], *COMMON, *words])


@pytest.mark.parametrize("name", TINY)
def test_every_benchmark(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("SAL_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(builtin, "SIZES", {"train": 8, "val": 1, "test": 2})
    result, figure = tmp_path / "made" / "result.json", tmp_path / "figure.png"
    assert bench(name, "--out", str(result), "--plot", str(figure)) == 0
    said = capsys.readouterr().out
    assert f"{name} on cpu" in said
    document = plot.read(result)
    assert document["bench"] == name
    assert document["rounds"] == 1
    assert len(document["load"]) == 2
    assert all(one["ms_p10"] <= one["ms"] <= one["ms_p90"] for one in document["results"])
    assert {ratio["name"] for ratio in document["ratios"]} >= set(RATIOS[name])
    assert all(ratio["name"] in said and ratio["value"] >= 0 for ratio in document["ratios"])
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert main(["bench", "plot", str(result), "--out", str(tmp_path / "figures")]) == 0
    assert (tmp_path / "figures" / "result.png").read_bytes() == figure.read_bytes()


def test_what_is_asked_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit goes with the network and size that it is asked for."""
    monkeypatch.setattr(timing, "in_turn", lambda name, variants, *rest: {key: [1.0] for key in variants})
    out = tmp_path / "result.json"
    assert bench("step", "--image-size", "64", "--out", str(out)) == 0
    asked = {ratio["name"]: schema.asked(ratio) for ratio in json.loads(out.read_text())["ratios"]}
    assert asked["saliency step / cross-entropy step"] == "at most 1.15"
    assert asked["two models from the store / saliency step from the store"] == "at most 2"


def test_bf16_and_a_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    assert bench("score", "--precision", "bfloat16", "--trace", str(trace)) == 0
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert names >= {"score", "bare forward loop", "aten::softmax"}
    assert torch.get_num_threads() == 2  # as before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["step", "--rounds", "0"], "--rounds 0: expected at least 1"),
        (["score", "--threads", "0"], "--threads 0: expected at least 1"),
        (["data", "--images", "0"], "--images 0: expected at least 1"),
        (["select", "--classes", "1"], "--classes 1: expected at least 2"),
        (["data", "--workers", "-1"], "--workers -1: expected at least 0"),
        (["select", "--out", "{folder}"], "a folder; expected the name of a JSON file"),
        (["select", "--out", "{folder}/file/result.json"], "is not a folder that can be written to"),
        (["ops", "--plot", "figure.svg"], "expected the name of a PNG file, .png"),
        (["step", "--image-size", "32"], "too few to compare maps at"),
        (["step", "--arch", "resnet19"], "arch"),
        (["run", "--criterion", "margins"], "did you mean 'margin'?"),
        (["run", "--trace", "trace.json"], "too long for a trace"),
        (["score", "--device", "abacus"], "--device abacus"),
        (["steps"], "expected one of data, ops, step, score, select, run, plot"),
        (["plot", "{folder}/file"], "cannot be read"),
        (["plot", "{folder}/old.json"], "not a result of `sal-fast bench`"),
    ],
)
def test_refused_before_anything_is_measured(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(timing, "in_turn", None)
    (tmp_path / "file").write_text("-")
    (tmp_path / "old.json").write_text('{"schema": 1, "bench": "data"}')
    assert main(["bench", *(word.format(folder=tmp_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def document() -> dict[str, Any]:
    timed = {"ours": [1.0, 2.0, 8.0], "theirs": [2.0, 4.0, 4.0]}
    ratios = [
        Ratio("theirs", "ours", at_least=1.5),
        Ratio("ours", "theirs", at_most=0.4),
        Ratio("ours", "theirs", times=2),
        Ratio("ours", "ours"),
    ]
    options, items = Options(rounds=3), {"ours": 4, "theirs": 4}
    return timing.document(
        "step", torch.device("cpu"), options, 0.5, timed, ratios, unit="images", items=items
    )


def test_ratios_are_of_the_same_round() -> None:
    made = document()
    at_least, at_most, twice, _ = made["ratios"]
    assert at_least["value"] == 2  # of 2, 2, 0.5; the medians' own is 2 too
    assert at_least["p10"] == pytest.approx(0.8)
    assert schema.held(at_least) is True
    assert at_most["value"] == 0.5
    assert schema.held(at_most) is False
    assert (twice["name"], twice["value"], schema.held(twice)) == ("2 x ours / theirs", 1, None)
    ours = made["results"][0]
    assert (ours["ms"], ours["per_second"]) == (2000, 2)
    assert ours["ms_p10"] == pytest.approx(1200)


def test_one_form() -> None:
    good = document()
    schema.check(good)
    for change in (
        {"schema": 1},
        {"rounds": "3"},
        {"more": 0},
        {"results": [{"variant": "ours"}]},
        {"figures": {"idle": "none"}},
    ):
        with pytest.raises(ValueError, match=r"must be|expected the fields"):
            schema.check(copy.deepcopy(good) | change)


def test_figure_of_held_missed_and_far_ratios() -> None:
    made = document()
    made["ratios"] += [{**made["ratios"][3], "name": f"{far}", "value": far, "p90": far} for far in (30, 900)]
    drawn = plot.figure(made)
    words = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert words == ["held", "missed", "nothing asked", "10 to 90 % of rounds", "asked"]
    axes = drawn.axes[0]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.texts] == ["2", "0.5", "1", "1", "30", "900"]


def test_no_speed_of_a_wrong_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usual, "cyborg_loss", lambda *given: torch.tensor(99.0))
    with pytest.raises(AssertionError, match="not close"):
        bench("step")
    monkeypatch.setattr(usual, "most_uncertain", lambda logits, k, kind: torch.arange(k))
    with pytest.raises(AssertionError, match="usual loop"):
        bench("select")


def test_gradients_that_memory_does_not_allow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(select, "free_memory", lambda device: 0)
    assert bench("select") == 0
    captured = capsys.readouterr()
    assert "left out" in captured.err
    assert "gradients" not in captured.out


def test_a_bar_inside_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a terminal, what is measured may show progress of its own."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.bar("outer", 2) as outer, progress.bar("inner", 3) as inner:
        inner()
        outer()
    with progress.bar("next", 1) as advance:
        advance()


def test_a_short_call_is_repeated() -> None:
    calls = []
    timed = timing.in_turn("x", {"short": lambda: calls.append(0)}, torch.device("cpu"), Options(rounds=2))
    assert len(timed["short"]) == 2
    assert len(calls) > 100
    with pytest.raises(InputError, match="expected at least 1"):
        Options(rounds=0).check()
