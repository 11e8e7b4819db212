"""The beginning of a report on a run with a baseline: its sentence, its figure and what they rest on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_folders import make_run
from sketches import Sketch

from sal_fast.experiment.loading import load
from sal_fast.report import gained, write

GAINED = {"labelled": 120, "having": 0.6, "lacking": 0.3, "images": 300}


def gain(what: str, measure: str, mean: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {**GAINED, "what": what, "measure": measure, "mean": mean, "low": low, "high": high, **more}


def make(path: Path, gains: list[dict[str, Any]], notes: list[str] = [], **more: Any) -> Path:  # noqa: B006
    run = make_run(path, rounds=2, examples=0, **more)
    (run / "baseline").mkdir()
    held = {"gains": gains, "notes": notes, "seconds": 1.5}
    (run / "baseline" / "gained.json").write_text(json.dumps(held))
    return run


@pytest.mark.parametrize(
    ("gains", "sentence"),
    [
        (
            [
                gain("saliency", "dice", 0.3, 0.25, 0.35),
                gain("saliency", "accuracy", 0.01, -0.03, 0.05),
                gain("criterion", "accuracy", -0.04, -0.06, -0.02),
            ],
            "On builtin, with this one seed, training with maps (sal) gained 0.300 of Dice (0.250 to 0.350), "
            "and changed accuracy by an amount that cannot be told from nothing (−0.030 to +0.050); "
            "choosing images by margin lost 0.040 of accuracy (0.020 to 0.060).",
        ),
        (
            [gain("criterion", "accuracy", 0.0, 0.0, 0.0)],
            "On builtin, with this one seed, choosing images by margin changed accuracy by an amount that "
            "cannot be told from nothing (+0.000 to +0.000).",
        ),
        ([], "On builtin it cannot be told what saliency and the criterion gained."),
    ],
)
def test_the_sentence(gains: list[dict[str, Any]], sentence: str, tmp_path: Path) -> None:
    opening = gained.opening(load(make(tmp_path / "run", gains)))
    assert opening is not None
    assert opening.sentence == sentence
    assert ("300 test images" in opening.basis) == bool(gains)


def test_without_a_baseline(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=2, examples=0)
    assert gained.opening(load(run)) is None


def test_a_control_says_so(tmp_path: Path) -> None:
    run = make(tmp_path / "run", [gain("saliency", "dice", 0.3, 0.2, 0.4)], control_maps="shuffled")
    opening = gained.opening(load(run))
    assert opening is not None
    assert "training with maps (sal, shuffled maps) gained" in opening.sentence
    page = write([run], tmp_path / "out").read_text(encoding="utf-8")
    assert "shuffled maps took the place of people's: this run is a control" in " ".join(page.split())


def test_the_report_opens_with_it(tmp_path: Path, sketches: list[Sketch]) -> None:
    notes = ["The 9 test images are few."]
    run = make(tmp_path / "run", [gain("saliency", "dice", 0.3, 0.25, 0.35)], notes)
    page = write([run], tmp_path / "out").read_text(encoding="utf-8")
    opening = gained.opening(load(run))
    assert opening is not None
    at = [page.index(text) for text in (opening.sentence, "<img", "The 9 test images are few.", "<h1>")]
    assert at == sorted(at)
    assert (tmp_path / "out" / "gained.png").exists()
    assert any("saliency: Dice" in sketch.texts for sketch in sketches)


def test_several_runs_each_have_theirs(tmp_path: Path, sketches: list[Sketch]) -> None:
    for seed in (0, 1):
        make(tmp_path / f"runs/s{seed}", [gain("saliency", "dice", 0.3 + seed, 0.2, 2.0)], seed=seed)
    make_run(tmp_path / "runs/none", regime="b1", rounds=2, examples=0)
    page = write([tmp_path / "runs"], tmp_path / "out").read_text(encoding="utf-8")
    assert page.index("gained 0.300 of Dice") < page.index("gained 1.300 of Dice") < page.index("<h1>")
    assert {path.name for path in (tmp_path / "out").glob("gained*")} == {"gained-1.png", "gained-2.png"}
