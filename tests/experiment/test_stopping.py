"""When labelling ends by itself: on curves whose answer is known, after a kill, and on several ranks."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_runs import TINY, rounds
from torchmetrics.functional.classification import multiclass_cohen_kappa

from sal_fast.errors import InputError
from sal_fast.experiment import stopping
from sal_fast.experiment.budget import plan
from sal_fast.experiment.config import Config
from sal_fast.experiment.run import run
from sal_fast.experiment.stopping import ends, expected_gain, kappa

QUIET: Any = lambda run, last: None  # noqa: E731


def by_definition(one: list[int], other: list[int]) -> Fraction | None:
    """Cohen's kappa in whole numbers."""
    count = len(one)
    equal = Fraction(sum(a == b for a, b in zip(one, other, strict=True)), count)
    first, second = Counter(one), Counter(other)
    chance = sum((Fraction(first[label] * second[label], count**2) for label in first), Fraction(0))
    return None if chance == 1 else (equal - chance) / (1 - chance)


@pytest.mark.parametrize("seed", range(20))
def test_kappa_is_cohens(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes, count = int(rng.integers(2, 9)), int(rng.integers(30, 200))
    one = rng.integers(classes, size=count)
    other = np.where(rng.random(count) < rng.random(), one, rng.integers(classes, size=count))
    got, exact = kappa(one.tolist(), other.tolist()), by_definition(one.tolist(), other.tolist())
    assert exact is not None
    assert got == pytest.approx(float(exact), abs=1e-12)
    theirs = multiclass_cohen_kappa(torch.from_numpy(one), torch.from_numpy(other), classes)
    assert got == pytest.approx(float(theirs), abs=1e-5)


def test_kappa_of_odd_lists() -> None:
    assert kappa([0, 1] * 20, [0, 1] * 20) == 1
    assert kappa([0, 1] * 20, [1, 0] * 20) == -1
    assert kappa([0] * 40, [0, 1] * 20) == 0
    assert kappa([0] * 40, [1] * 40) == 0
    assert kappa([0] * 40, [0] * 40) is None  # one class alone: equal by chance alone
    assert kappa([0, 1] * 14, [0, 1] * 14) is None  # too few
    assert kappa([], []) is None


def curve(n: np.ndarray, floor: float, height: float, exponent: float) -> list[float]:
    return (1 - floor - height * n**-exponent).tolist()


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("floor", [0.0, 0.1, 0.3])
def test_the_gain_of_a_power_law_is_found(exponent: float, floor: float) -> None:
    """The gain that is left after any number of rounds is that of the curve itself."""
    n, pool = np.arange(50, 1001, 50), 1000
    height = 0.5 * 50**exponent
    accuracy = curve(n, floor, height, exponent)
    for count in range(stopping.FEWEST, len(n) + 1):
        left = height * (float(n[count - 1]) ** -exponent - pool**-exponent)
        assert expected_gain(n[:count].tolist(), accuracy[:count], pool) == pytest.approx(left, abs=1e-6)


def test_the_gain_of_noise_is_near_that_of_its_curve() -> None:
    """With 500 validation images, an accuracy of 0.9 has a standard error of 0.013."""
    n, pool = np.arange(100, 1001, 50), 2000
    off = []
    for seed in range(50):
        truth = np.array(curve(n, 0.08, 2.0, 0.6))
        seen = np.random.default_rng(seed).binomial(500, truth) / 500
        left = 2.0 * (1000**-0.6 - pool**-0.6)
        off.append((expected_gain(n.tolist(), seen.tolist(), pool) or 0) - left)
    assert abs(np.median(off)) < 0.01


def test_curves_without_a_gain() -> None:
    n = [10, 20, 30, 40, 50]
    assert expected_gain(n, [0.8] * 5, 100) == pytest.approx(0, abs=1e-9)
    assert expected_gain(n, [0.9, 0.8, 0.7, 0.6, 0.5], 100) == pytest.approx(0, abs=1e-9)  # it falls
    assert expected_gain(n, [1.0] * 5, 100) == pytest.approx(0, abs=1e-9)
    assert expected_gain(n, [0.5, 0.6, 0.7, 0.8, 0.9], 50) == pytest.approx(0, abs=1e-9)  # no image is left
    assert expected_gain(n[:3], [0.5, 0.6, 0.7], 100) is None


@pytest.mark.parametrize(
    ("kappas", "gain", "end"),
    [
        ([None, 0.99, 0.995, 1.0], 0.01, True),
        ([None, 0.5, 0.98, 0.995, 1.0], 0.0, True),  # the mean counts
        ([None, 0.99, 0.99, 0.985], 0.0, False),
        ([None, 0.99, 0.995, 1.0], 0.011, False),  # more labels would help
        ([None, 0.99, 0.995, 1.0], None, False),
        ([None, 1.0, 1.0], 0.0, False),  # two agreements are too few
        ([None, 1.0, 1.0, None], 0.0, False),
        ([None, 1.0, 1.0, 1.0, None, 1.0, 1.0], 0.0, False),
        ([], 0.0, False),
    ],
)
def test_both_conditions_have_to_hold(kappas: list[float | None], gain: float | None, end: bool) -> None:
    assert ends(kappas, gain) is end


def simulated(floor: float, height: float, exponent: float, settles: int) -> int:
    """Return how many images are labelled when labelling ends. The pool has 2,000, and each query takes 100.

    Predictions change until `settles` images are labelled: kappa is 0.9 before and 1 after.
    """
    n = np.arange(100, 2001, 100)
    accuracy = curve(n, floor, height, exponent)
    kappas: list[float | None] = [None]
    for index, count in enumerate(n.tolist()):
        if index:
            kappas.append(1.0 if count > settles else 0.9)
        gain = expected_gain(n[: index + 1].tolist(), accuracy[: index + 1], 2000)
        if ends(kappas, gain):
            return count
    return 2000


def test_labelling_ends_where_the_curve_says() -> None:
    """The gain that is left, 10/n - 10/2000, is 0.01 for n = 667, and the next round has 700 images."""
    assert simulated(0.1, 10.0, 1.0, settles=0) == 700
    assert simulated(0.1, 10.0, 1.0, settles=900) == 1200  # the third agreement after it
    assert simulated(0.1, 0.0, 1.0, settles=0) == 400  # nothing to gain: as soon as it can be told
    assert simulated(0.0, 3.0, 0.5, settles=0) == 1600  # 3/sqrt(n) - 3/sqrt(2000) is 0.01 for n = 1517
    assert simulated(0.1, 10.0, 1.0, settles=3000) == 2000


def test_the_plan_goes_on_to_the_whole_pool() -> None:
    open_end, whole = plan(240, 0.1, 0.1, "auto", 0.2), plan(240, 0.1, 0.1, 1.0, 0.2)
    assert (open_end.labelled, open_end.human) == (whole.labelled, whole.human)
    assert (open_end.open_end, whole.open_end) == (True, False)
    with pytest.raises(
        InputError, match="--stop-fraction never: expected a share of the pool, 0 to 1, or auto"
    ):
        plan(240, 0.1, 0.1, "never", 0.2)  # type: ignore[arg-type]
    assert Config(stop_fraction="auto").stop_fraction == "auto"
    with pytest.raises(InputError, match="--stop-fraction: expected a number or 'auto', got 'never'"):
        Config(stop_fraction="never")  # type: ignore[arg-type]


@pytest.fixture
def easy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the rule hold after two rounds, whatever the models of so short a run predict."""
    for name, value in {"GAIN": 1.0, "WINDOW": 1, "FEWEST": 2}.items():
        monkeypatch.setattr(stopping, name, value)
    monkeypatch.setattr(stopping, "kappa", lambda one, other: 1.0 if one else None)


def options(data: Path, out: Path, **more: Any) -> Config:
    fields = {
        **TINY,
        "data": str(data),
        "out": str(out),
        "epochs": 1,
        "stop_fraction": "auto",
        "regime": "sal",
    }
    return Config(**{**fields, "query_fraction": 0.1, **more})


@pytest.mark.usefixtures("easy")
def test_a_run_ends_by_itself_and_goes_on_the_same_after_any_end(shared_folder: Path, tmp_path: Path) -> None:
    whole = run(options(shared_folder, tmp_path / "whole"), on_round=QUIET)
    assert [one.stopped for one in whole.rounds] == [False, True]
    assert whole.finished
    assert whole.summary is not None
    assert whole.summary["stopped"] is True
    assert whole.summary["labelled"] == whole.rounds[-1].labelled < len(whole.record["splits"]["train"])
    first, second = whole.rounds
    assert (first.stop_kappa, first.expected_gain) == (None, None)
    assert second.expected_gain is not None
    last = tmp_path / "whole/rounds/001"
    assert not (last / "query.csv").exists()
    ids, train = stopping.read_predictions(last / stopping.FILE), whole.record["splits"]["train"]
    assert sorted(ids) == sorted(train)

    parted = tmp_path / "parted"
    run(options(shared_folder, parted), on_round=QUIET, until=1)
    shutil.copytree(parted, tmp_path / "copy")
    run(options(shared_folder, parted), on_round=QUIET)
    assert rounds(parted) == rounds(tmp_path / "whole")
    (parted / "summary.json").unlink()  # a kill between the last line and the summary
    again = run(options(shared_folder, parted), on_round=QUIET)
    assert again.summary is not None
    assert again.summary["rounds"] == 2
    assert rounds(parted) == rounds(tmp_path / "whole")


@pytest.mark.full
def test_a_run_whose_predictions_change_goes_on_to_the_end(
    shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "kappa", lambda one, other: 0.5)
    config = options(shared_folder, tmp_path / "run", query_fraction=0.4)
    found = run(config, on_round=QUIET)
    assert [one.stopped for one in found.rounds] == [False] * found.plan.rounds
    assert found.rounds[-1].labelled == len(found.record["splits"]["train"])
    lines = [json.loads(line) for line in (tmp_path / "run/rounds.jsonl").read_text().splitlines()]
    assert all({"stop_kappa", "expected_gain", "stopped"} <= line.keys() for line in lines)


@pytest.mark.full
def test_another_run_says_nothing_of_the_rule(shared_folder: Path, tmp_path: Path) -> None:
    found = run(options(shared_folder, tmp_path / "run", stop_fraction=0.5), on_round=QUIET)
    assert not any("stop" in name for line in rounds(tmp_path / "run") for name in line)
    assert not list(tmp_path.glob("run/rounds/*/stop_set.csv"))
    assert found.summary is not None
    assert "stopped" not in found.summary
