"""The report shows generated maps beside their images, and what `--stop-fraction auto` saw."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_folders import make_run

from sal_fast.experiment.record import write_query
from sal_fast.experiment.sheet import SIDE
from sal_fast.report import write


def with_maps(run: Path, rounds: list[int], ids: list[str]) -> Path:
    """Add queries to a run's folder, with a map for each image that marks its left half."""
    for number in rounds:
        folder = run / "rounds" / f"{number:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        write_query(folder, ids, [0.5] * len(ids))
        for name in ids:
            path = folder / "maps" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.repeat(np.uint8([[255] * 32 + [0] * 32]), 64, axis=0)).save(path)
    return run


def text_of(page: Path) -> str:
    return " ".join(page.read_text().split())


def test_generated_maps_are_beside_their_images(shared_folder: Path, tmp_path: Path) -> None:
    ids = ["red/000", "blue/003"]
    run = with_maps(make_run(tmp_path / "it", data=str(shared_folder)), [2, 3, 4], ids)
    page = write([run], tmp_path / "report")
    assert "Generated maps" in text_of(page)
    assert "By rank, query 3: red/000, blue/003; query 5: red/000, blue/003." in text_of(page)
    assert sorted(path.name for path in page.parent.glob("maps-*.png")) == ["maps-3.png", "maps-5.png"]
    assert "are not shown" not in text_of(page)
    with Image.open(page.parent / "maps-3.png") as image:
        assert image.width / image.height == pytest.approx(2 * (2 * SIDE + 4) / (SIDE + 4), abs=0.05)


def test_without_the_images_a_note_says_so(make_folder: Any, tmp_path: Path) -> None:
    data = make_folder(tmp_path / "pool")
    run = with_maps(make_run(tmp_path / "it", data=str(data)), [2], ["red/000"])
    shutil.rmtree(data)
    page = write([run], tmp_path / "report")
    assert "The generated maps of it are not shown: data folder not found" in text_of(page)
    assert not list(page.parent.glob("maps-*.png"))


def test_a_run_without_generated_maps(tmp_path: Path) -> None:
    assert "Generated maps" not in text_of(write([make_run(tmp_path / "it")], tmp_path / "report"))


def stopping(path: Path, seed: int, *, stopped: bool) -> Path:
    run = make_run(path, seed=seed, stop_fraction="auto", regime="b1", rounds=5 + seed)
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    for i, line in enumerate(lines):
        line |= {"stop_kappa": 0.9 + 0.02 * i if i else None, "expected_gain": 0.05 / i if i > 2 else None}
        line["stopped"] = stopped and i == len(lines) - 1
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_the_curves_of_the_rule(tmp_path: Path) -> None:
    for seed in (0, 1):
        stopping(tmp_path / "runs" / f"s{seed}", seed, stopped=seed == 0)
    page = write([tmp_path / "runs"], tmp_path / "report")
    found = {path.name for path in page.parent.glob("ending-*.png")}
    assert found == {"ending-stop-kappa.png", "ending-expected-gain.png"}
    assert "When labelling ends" in text_of(page)
    assert "s0 ended by --stop-fraction auto. AULC is a mean over the images" in text_of(page)


def test_runs_that_end_with_as_many_images_can_be_compared(tmp_path: Path) -> None:
    stopping(tmp_path / "one", 0, stopped=True)
    page = write([tmp_path / "one"], tmp_path / "report")
    assert "cannot be compared" not in text_of(page)
