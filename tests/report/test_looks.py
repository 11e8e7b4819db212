"""One setting has one colour on a whole page, and no colour stands for two of them in a figure."""

import re
from pathlib import Path

import pytest
from report_folders import make_run
from sketches import Sketch

from sal_fast import plugins
from sal_fast.experiment.regimes import REGIMES
from sal_fast.report import write
from sal_fast.report.looks import BLACK, GREY, Looks
from sal_fast.report.runs import load

PAGES = {
    "seven regimes, six criteria, budgets, probes, alphas, trials, a second data set": [
        *({"regime": regime, "criterion": one} for regime in REGIMES for one in ("margin", "badge")),
        *({"criterion": one} for one in plugins.names("criterion") if one not in ("margin", "badge")),
        *({"human_budget": budget} for budget in (0.05, 0.1, "auto")),
        *({"regime": regime, "probe": "gradcam"} for regime in ("b1", "sal")),
        *({"regime": "b2", "alpha": alpha} for alpha in (0.1, 0.5)),
        *({"regime": regime, "dataset": "other"} for regime in ("sal", "tait")),
    ],
    "one regime, six criteria": [{"criterion": one} for one in plugins.names("criterion")],
    "one regime, many networks and probes": [
        {"arch": arch, "probe": probe}
        for arch in plugins.names("network")
        for probe in ("cam", "gradcam", "gradcam++", "hirescam")
    ],
    "two regimes, many budgets": [
        {"regime": "b1"},
        *({"human_budget": 0.05 * budget} for budget in range(1, 15)),
        {"human_budget": "auto"},
    ],
}


def names(sketch: Sketch) -> dict[str, str]:
    """Label -> colour, without the counts and seeds of a legend; grey and black lines are references."""
    return {
        re.sub(r"(, seed \d+)?( \(.*\))?$", "", label): colour
        for label, colour in sketch.colours.items()
        if colour != GREY
    }


@pytest.mark.parametrize("page", PAGES)
def test_a_label_has_one_colour_and_a_colour_one_label(
    page: str, tmp_path: Path, sketches: list[Sketch]
) -> None:
    for i, setting in enumerate(PAGES[page]):
        for seed in (0, 1):
            path = tmp_path / "runs" / f"{i}-{seed}"
            make_run(path, seed=seed, rounds=3, examples=0, finished=(i, seed) != (2, 1), **setting)
    write([tmp_path / "runs"], tmp_path / "out")
    assert len(sketches) > 2
    colours: dict[str, str] = {}
    for sketch in sketches:
        here = names(sketch)
        for label, colour in here.items():
            assert colours.setdefault(label, colour) == colour, label
        assert len(set(here.values())) == len(here), here
        assert sketch.drawn <= {*here.values(), GREY, BLACK, "#e6e6e6"}


def test_plain_regimes_look_as_in_the_paper(tmp_path: Path) -> None:
    for regime in REGIMES:
        make_run(tmp_path / regime, regime=regime, rounds=1, examples=0)
    make_run(tmp_path / "more", regime="sal", human_budget=0.3, rounds=1, examples=0)
    runs, _ = load([tmp_path])
    looks = Looks(runs)
    for run in runs:
        look = looks.line(run.line, run)
        assert look["marker"] == REGIMES[run.regime].marker
        if run.line != "sal, 30 % human":
            assert look["color"] == REGIMES[run.regime].colour
    assert look["linestyle"] == "-"
    assert looks.line("sal, 30 % human", runs[3])["linestyle"] == "--"


def test_a_criterion_has_its_colour_in_curves_and_scatter(tmp_path: Path, sketches: list[Sketch]) -> None:
    for criterion in ("margin", "badge", "entropy"):
        make_run(tmp_path / "runs" / criterion, criterion=criterion, rounds=2, examples=0)
    write([tmp_path / "runs"], tmp_path / "out")
    dice, _, scatter = (names(sketch) for sketch in sketches)
    for criterion in ("margin", "badge", "entropy"):
        assert dice[f"sal, {criterion}"] == scatter[criterion]
