"""Reports take options and regimes from where they are declared: a new one needs no edit here."""

import dataclasses
from pathlib import Path

import polars as pl
import pytest
from report_folders import make_run
from sketches import Sketch

from sal_fast.experiment import config, options, record
from sal_fast.experiment.regimes import REGIMES, Regime
from sal_fast.report import differences, write
from sal_fast.report.claims import claims
from sal_fast.report.runs import load


def add_option(monkeypatch: pytest.MonkeyPatch, **nature) -> None:
    """Add the option `sharpness` to every configuration that is made from here on."""

    @dataclasses.dataclass(frozen=True)
    class More(config.Config):
        sharpness: int = options.option(1, **nature)
        """It is made up."""

    monkeypatch.setitem(config.OPTIONS, "sharpness", options.options_of(More)["sharpness"])
    monkeypatch.setitem(config.TYPES, "sharpness", int)
    monkeypatch.setattr(record, "Config", More)


def make_both(root: Path, **last) -> None:
    """b1 and sal for two seeds; `last` are settings of sal in the second folder."""
    for seed in (0, 1):
        make_run(root / f"b1-{seed}", regime="b1", seed=seed, rounds=2, examples=0)
        make_run(root / f"sal-{seed}", seed=seed, rounds=2, examples=0)
        make_run(root / f"more-{seed}", seed=seed, rounds=2, examples=0, **last)


@pytest.mark.parametrize("affects", ["training", "maps network", "query"])
def test_a_new_option_tells_runs_apart(affects, tmp_path, monkeypatch):
    add_option(monkeypatch, affects=affects)
    make_both(tmp_path, sharpness=2)
    runs, _ = load([tmp_path])
    assert list(dict.fromkeys(run.group for run in runs)) == ["b1", "sal, sharpness 1", "sal, sharpness 2"]
    assert {run.panel for run in runs} == {"builtin"}
    # the runs without it have its default
    assert [row["pair"] for row in differences.table(runs)] == ["sal, sharpness 1 − b1"]


def test_a_new_option_that_matters_to_some_regimes(tmp_path, monkeypatch):
    add_option(monkeypatch, affects="training", only="uses_maps")
    make_both(tmp_path, sharpness=2)
    pairs = [row["pair"] for row in differences.table(load([tmp_path])[0])]
    assert pairs == ["sal, sharpness 1 − b1", "sal, sharpness 2 − b1"]


@pytest.mark.parametrize("affects", ["", "machine"])
def test_a_new_option_that_changes_nothing(affects, tmp_path, monkeypatch):
    add_option(monkeypatch, affects=affects)
    make_both(tmp_path / "runs", sharpness=2)
    runs, notes = load([tmp_path / "runs"])
    assert list(dict.fromkeys(run.group for run in runs)) == ["b1", "sal"]
    assert notes[0] == "sal-0 is left out: it repeats more-0 (same data, settings and seed)."


def test_a_new_compared_option_parts_panels_and_is_a_column(tmp_path, monkeypatch, sketches):
    add_option(monkeypatch, affects="training", compared=True)
    make_both(tmp_path / "runs", sharpness=2)
    runs, _ = load([tmp_path / "runs"])
    assert list(dict.fromkeys(run.panel for run in runs)) == ["builtin, 1", "builtin, 2"]
    html = write([tmp_path / "runs"], tmp_path / "out")
    for name in ("runs", "summary", "rounds", "differences", "gains"):
        assert "sharpness" in pl.read_csv(html.with_name(f"{name}.csv")).columns, name


def test_runs_that_differ_in_the_decoder_are_paired(tmp_path):
    """It may change when a run is resumed, so that it tells nothing about the run."""
    for seed in (0, 1):
        make_run(tmp_path / f"b1-{seed}", regime="b1", seed=seed, decoder="torch", rounds=2, examples=0)
        make_run(tmp_path / f"b2-{seed}", regime="b2", seed=seed, decoder="pillow", rounds=2, examples=0)
    runs, _ = load([tmp_path])
    assert [run.group for run in runs] == ["b1", "b1", "b2", "b2"]
    assert [(row["pair"], row["n"]) for row in differences.table(runs)] == [("b2 − b1", 2)]


@pytest.mark.parametrize("variant_of", [None, "sal"])
def test_a_new_regime_has_its_place(variant_of, tmp_path, monkeypatch, sketches: list[Sketch]):
    monkeypatch.setitem(REGIMES, "mine", Regime(0.5, "human", "none", "#123456", "P", variant_of))
    named = dataclasses.replace(config.OPTIONS["regime"], choices=tuple(REGIMES))
    monkeypatch.setitem(config.OPTIONS, "regime", named)
    for regime in ("b1", "sal", "mine"):
        for seed in (0, 1):
            make_run(tmp_path / "runs" / f"{regime}-{seed}", regime=regime, seed=seed, rounds=2, examples=0)
    runs, _ = load([tmp_path / "runs"])
    assert [run.regime for run in runs[::2]] == ["b1", "sal", "mine"]
    pairs = {row["pair"] for row in differences.table(runs)}
    assert pairs == {"sal − b1", "mine − b1", "sal − mine"}
    said = {claim.claim for claim in claims(runs)[0]}
    assert ("Dice: sal above mine" in said) == (variant_of == "sal")
    write([tmp_path / "runs"], tmp_path / "out")
    assert len(sketches) == 5  # two curves, scatter, two gains by maps
    for sketch in sketches:
        assert "#123456" in sketch.colours.values()


def test_criteria_of_one_name_in_two_files_stay_apart(tmp_path):
    for folder in ("a", "b"):
        make_run(tmp_path / folder, criterion=f"/{folder}/mine.py:select", rounds=1, examples=0)
    make_run(tmp_path / "c", criterion="margin", rounds=1, examples=0)
    assert [run.compared["criterion"] for run in load([tmp_path])[0]] == [
        "criterion '/a/mine.py:select'", "criterion '/b/mine.py:select'", "criterion 'margin'"
    ]  # fmt: skip
    runs, _ = load([tmp_path / "a", tmp_path / "c"])
    assert [run.group for run in runs] == ["sal, select", "sal, margin"]
