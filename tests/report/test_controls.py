"""The table of what people's maps are worth, on values that are worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from report_folders import make_run
from sketches import Sketch

from sal_fast.report import write
from sal_fast.report.claims import claims
from sal_fast.report.controls import OWN, table
from sal_fast.report.runs import load

LEVEL = {"none": 0.6, "shuffled": 0.5, "inverted": 0.2}
ACCURACY = [0.5, 0.5]


def make(root: Path, *, references: bool = True) -> Path:
    """sal with three kinds of maps and b1, three seeds; Dice rises by 0.01 from seed to seed."""
    for seed in range(3):
        for kind, level in LEVEL.items():
            own = 0.01 * seed * (kind == "none")
            run = make_run(
                root / f"{kind}-{seed}",
                seed=seed,
                control_maps=kind,
                dice=[level + own] * 2,
                accuracy=ACCURACY,
                examples=0,
            )
            if references:
                summary = json.loads((run / "summary.json").read_text())
                summary |= {"dice_disc": 0.4, "dice_mean_mask": 0.45}
                (run / "summary.json").write_text(json.dumps(summary))
        make_run(root / f"b1-{seed}", regime="b1", seed=seed, dice=[0.3] * 2, accuracy=ACCURACY, examples=0)
    return root


def test_by_hand(tmp_path: Path) -> None:
    rows = {row["maps"]: row for row in table(load([make(tmp_path)])[0])}
    references = ["a disc in the middle", "the mean training mask", "a random map"]
    assert [*rows] == [OWN, "inverted", "shuffled", "none (b1)", *references]
    assert all(row["n"] == 3 and row["regime"] == "sal" for row in rows.values())
    assert rows[OWN]["dice_mean"] == pytest.approx(0.61)
    assert rows[OWN]["gained_dice_mean"] is None
    # differences 0.10, 0.11, 0.12: mean 0.11, sigma 0.01, t(2, .975) = 4.302653
    for name in ("dice", "aulc_dice"):
        found = [rows["shuffled"][f"gained_{name}_{part}"] for part in ("mean", "low", "high")]
        half = 4.302653 * 0.01 / 3**0.5
        assert found == pytest.approx([0.11, 0.11 - half, 0.11 + half], abs=1e-6)
    means = {maps: row["gained_dice_mean"] for maps, row in rows.items() if maps != OWN}
    expected = [0.41, 0.11, 0.31, 0.21, 0.16, 0.61 - 0.17]
    assert [*means.values()] == pytest.approx(expected)
    assert rows["the mean training mask"]["accuracy_mean"] is None


def test_there_is_none_without_controls(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path / f"sal-{seed}", seed=seed, rounds=2, examples=0)
        make_run(tmp_path / f"b1-{seed}", regime="b1", seed=seed, rounds=2, examples=0)
    assert table(load([tmp_path])[0]) == []


def test_runs_of_before_have_no_reference_maps(tmp_path: Path) -> None:
    rows = table(load([make(tmp_path, references=False)])[0])
    assert [row["maps"] for row in rows] == [OWN, "inverted", "shuffled", "none (b1)", "a random map"]


def test_controls_test_no_claim(tmp_path: Path) -> None:
    found, _ = claims(load([make(tmp_path)])[0])
    above = next(one for one in found if one.claim == "Dice: sal above b1 in every round")
    assert above.difference.mean == pytest.approx(0.31)
    only = [path for path in tmp_path.iterdir() if path.name.startswith(("shuffled", "b1"))]
    assert claims(load(only)[0])[0] == []


def test_the_page_and_the_file(tmp_path: Path, sketches: list[Sketch]) -> None:
    page = write([make(tmp_path / "runs")], tmp_path / "out")
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert "What people's maps are worth" in text or "What people&#39;s maps are worth" in text
    assert "sal: shuffled" in text
    assert len(pl.read_csv(tmp_path / "out/controls.csv")) == 7
    labels = {label for sketch in sketches for label in sketch.colours}
    assert {"sal, people's maps (n=3)", "sal, shuffled maps (n=3)", "b1 (n=3)"} <= labels
