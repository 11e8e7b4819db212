"""The baseline of a run: which models it trains, what they gained, and that a kill loses nothing."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_runs import arguments, kept, rounds
from scipy.special import comb

from sal_fast.cli import main
from sal_fast.cli.run import parse
from sal_fast.errors import InputError
from sal_fast.experiment import baseline
from sal_fast.experiment.budget import plan
from sal_fast.experiment.config import Config
from sal_fast.experiment.loading import load
from sal_fast.experiment.record import RunFolder
from sal_fast.report import gained

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("baseline") / "sal", baseline="b1")


def answers_of(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / "baseline" / f"{name}.npz") as archive:
        return dict(archive)


def accuracy(one: dict[str, np.ndarray]) -> float:
    return float((one["predicted"] == one["labels"]).mean())


def names(**options: Any) -> list[str]:
    config = Config.of({"start_fraction": 0.25, "query_fraction": 0.25, "stop_fraction": 1.0, **options})
    return [one.name for one in baseline.trained_models(config, config.plan(40), 40)]


def test_which_models_are_trained() -> None:
    half = {"stop_fraction": 0.5}
    assert names(**half) == ["b1-chosen-001", "b1-random-001"]
    # where the whole pool is labelled at the end, criteria are compared at half of it
    assert names() == ["b1-chosen-003", "b1-chosen-001", "b1-random-001"]
    assert names(criterion="random") == ["b1-chosen-003"]
    # b1 itself is the model without maps, and in the last round it is there already
    assert names(regime="b1", **half) == ["b1-random-001"]
    assert names(regime="b1") == ["b1-chosen-001", "b1-random-001"]
    # people have labelled no images drawn at random
    assert names(annotator="people") == ["b1-chosen-003"]
    # no query has chosen anything
    assert names(stop_fraction=0.25) == ["b1-chosen-000"]


@pytest.mark.parametrize(
    ("start", "query", "stop", "expected"),
    [
        (0.1, 0.1, 0.5, 4),  # 10, 20, 30, 40, 50 of 100
        (0.1, 0.1, 1.0, 4),
        (0.1, 0.15, 1.0, 2),  # 10, 25, 40, 55, ...
        (0.4, 0.2, 1.0, 1),  # 40, 60, ...: no round after a query is below half
        (0.5, 0.5, 1.0, None),  # 50, 100: the query leaves nothing out
        (0.2, 0.1, 0.2, None),
    ],
)
def test_round_of_criteria(start: float, query: float, stop: float, expected: int | None) -> None:
    assert baseline.round_of_criteria(plan(100, start, query, stop, 0.2), 100) == expected


def test_what_a_run_keeps(run: Path) -> None:
    files = sorted(path.name for path in (run / "baseline").iterdir())
    # 5, 9, 14 of 18 images: criteria are compared in the round with 9
    assert files == [
        "b1-chosen-001.npz", "b1-chosen-002.npz", "b1-random-001.npz", "gained.json", "sal-chosen-002.npz"
    ]  # fmt: skip
    last = rounds(run)[-1]
    own = answers_of(run, "sal-chosen-002")
    assert accuracy(own) == last["accuracy"]
    assert float(np.nanmean(own["dice"].astype(np.float64))) == pytest.approx(last["dice"], abs=1e-12)
    found = baseline.read(RunFolder(run))
    assert found is not None
    said = [(gain.what, gain.measure, gain.labelled) for gain in found.gains]
    assert said == [("saliency", "dice", 14), ("saliency", "accuracy", 14), ("criterion", "accuracy", 9)]
    bare = answers_of(run, "b1-chosen-002")
    for gain in found.gains[:2]:
        values = [
            one["dice"].astype(np.float64) if gain.measure == "dice" else one["predicted"] == one["labels"]
            for one in (own, bare)
        ]
        assert (gain.having, gain.lacking) == pytest.approx(tuple(np.nanmean(one) for one in values))
        assert gain.mean == pytest.approx(gain.having - gain.lacking)
        assert gain.low <= gain.mean <= gain.high


def test_its_models_are_those_of_whole_runs(run: Path, tiny: Tiny, tmp_path: Path) -> None:
    """b1 on random images is the run with that regime and criterion; b1 on all images of a round is b1."""
    whole = tiny(tmp_path / "random", regime="b1", criterion="random", stop_fraction=0.5)
    assert accuracy(answers_of(run, "b1-random-001")) == rounds(whole)[-1]["accuracy"]
    dice = answers_of(run, "b1-random-001")["dice"].astype(np.float64)
    assert float(np.nanmean(dice)) == pytest.approx(rounds(whole)[-1]["dice"], abs=1e-12)


def test_the_baseline_of_b1_is_the_run_itself(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny(tmp_path / "b1", regime="b1", stop_fraction=0.5, baseline="b1")
    found = baseline.read(RunFolder(folder))
    assert found is not None
    assert [gain.what for gain in found.gains] == ["criterion"]
    assert found.gains[0].having == rounds(folder)[-1]["accuracy"]


def test_it_changes_nothing_about_the_run(run: Path, tiny: Tiny, tmp_path: Path) -> None:
    without = tiny(tmp_path / "none")
    assert not (without / "baseline").exists()
    assert rounds(run) == rounds(without)
    assert kept(run) == kept(without)
    # it can be had later, too
    again = tiny(without, baseline="b1")
    for path in (run / "baseline").glob("*.npz"):
        assert path.read_bytes() == (again / "baseline" / path.name).read_bytes()
    assert json.loads((again / "summary.json").read_text())["rounds"] == 3


@pytest.mark.full
def test_one_that_was_killed_goes_on(
    run: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is interrupted before its third file; the first two are not made again."""
    written = []
    real = baseline.write_bytes

    def write(path: Path, data: bytes) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        real(path, data)

    monkeypatch.setattr(baseline, "write_bytes", write)
    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path / "cut", baseline="b1")
    assert not (tmp_path / "cut/summary.json").exists()
    monkeypatch.undo()
    with caplog.at_level(logging.INFO, logger="sal_fast"):
        tiny(tmp_path / "cut", baseline="b1")
    assert sum("baseline: training" in record.message for record in caplog.records) == 2
    for path in (run / "baseline").glob("*.npz"):
        assert path.read_bytes() == (tmp_path / "cut/baseline" / path.name).read_bytes()
    assert (tmp_path / "cut/summary.json").exists()


def test_a_head_alone(tiny: Tiny, tmp_path: Path) -> None:
    options = {"train": "head", "regime": "b2", "epochs": 1, "stop_fraction": 0.5}
    folder = tiny(tmp_path / "head", baseline="b1", **options)
    found = baseline.read(RunFolder(folder))
    assert found is not None
    assert found.gains[1].having == rounds(folder)[-1]["accuracy"]
    assert len(found.gains) == 3


def test_the_command_ends_with_the_sentence(
    shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(data=shared_folder, out=tmp_path / "run", epochs=1, stop_fraction=0.5)
    assert main(["run", *words, "--baseline"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    opening = gained.opening(load(tmp_path / "run"))
    assert opening is not None
    assert said.endswith(" ".join([opening.sentence, opening.basis, *opening.notes]))
    page = (tmp_path / "run/report/index.html").read_text(encoding="utf-8")
    assert page.index(opening.sentence) < page.index("<h1>")


def test_interval_of_two_images() -> None:
    """Samples of two values have the means 0, 0.5 and 1 with probabilities 1/4, 1/2 and 1/4."""
    assert baseline.interval(np.array([0.0, 1.0]), np.random.default_rng(0)) == (0.0, 1.0)
    assert baseline.interval(np.full(7, 0.25), np.random.default_rng(0)) == (0.25, 0.25)


def test_interval_of_differences_in_accuracy() -> None:
    """Of 60 images 12 are gained, and none is lost: the number in a sample is binomial."""
    differences = np.repeat([1.0, 0.0], [12, 48])
    n = len(differences)
    chance = np.array([comb(n, k) * 0.2**k * 0.8 ** (n - k) for k in range(n + 1)]).cumsum()
    exact = [int(np.searchsorted(chance, tail)) / n for tail in (0.025, 0.975)]
    found = baseline.interval(differences, np.random.default_rng(3))
    assert found == pytest.approx(exact, abs=1.01 / n)  # by one image, as 10,000 samples are not all
    assert found == baseline.interval(differences, np.random.default_rng(3))


def test_who_gets_one_without_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> None:
    from sal_fast.distributed import ALONE
    from sal_fast.experiment.settling import settle

    def settled(**options: Any) -> str:
        return settle(Config.of({"weights": "none", **options}), 240, {}, ALONE).baseline

    assert settled() == "b1"
    assert settled(out="x") == "none"
    assert settled(data="photographs") == "none"
    assert settled(baseline="none") == "none"
    assert settled(out="x", baseline="b1") == "b1"
    assert settled(regime="b1", criterion="random") == "none"
    assert settled(warm_start=True) == "none"
    # a run that goes on keeps what it took
    assert settle(Config(out="x"), 240, {"baseline": "b1"}, ALONE).baseline == "b1"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--baseline"], "b1"),
        (["--baseline", "--seed", "3"], "b1"),
        (["--seed", "3", "--baseline"], "b1"),
        (["--baseline", "b1"], "b1"),
        (["--baseline", "none"], "none"),
        (["--baseline=none"], "none"),
        ([], "auto"),
    ],
)
def test_on_the_command_line(words: list[str], expected: str) -> None:
    assert parse(words).baseline == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"warm_start": True}, "--warm-start goes on from the last"),
        ({"regime": "b1", "criterion": "random"}, "is the baseline itself"),
    ],
)
def test_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Config(baseline="b1", **options).check()


def test_figures_that_mean_little_are_named(run: Path) -> None:
    found = baseline.read(RunFolder(run))
    assert found is not None
    few = [note for note in found.notes if "test images are few" in note]
    assert len(few) == 1
    for path in (run / "baseline").glob("*.npz"):
        one = answers_of(run, path.stem)
        regime, images, _ = path.stem.split("-")
        named = any(
            note.startswith(f"{regime} on {'its own' if images == 'chosen' else images}")
            for note in found.notes
        )
        assert named or len(np.unique(one["predicted"])) > 1


def test_one_that_was_removed_is_made_again(run: Path, tiny: Tiny, tmp_path: Path) -> None:
    """Also by a command that does not ask for a baseline, if the run has one."""
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy/baseline/gained.json").unlink()
    again = baseline.read(RunFolder(tiny(tmp_path / "copy")))
    first = baseline.read(RunFolder(run))
    assert again is not None
    assert first is not None
    assert again.gains == first.gains


def test_a_damaged_baseline_is_refused(run: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert baseline.read(folder) is None
    baseline.place(folder).mkdir()
    (baseline.place(folder) / "gained.json").write_text('{"gains": [{"what": 1}]}')
    with pytest.raises(InputError, match=r"gained\.json is damaged"):
        baseline.read(folder)
