"""Whose turn it is, the table of rounds, and the record of a run: without a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sal_fast.errors import InputError
from sal_fast.experiment.answers.turns import Turns
from sal_fast.experiment.config import Config
from sal_fast.experiment.loading import Run
from sal_fast.experiment.record import Round, RunFolder
from sal_fast.experiment.watch import HEADER, row, seconds_left

HALF = {"start_fraction": 0.1, "query_fraction": 0.1, "stop_fraction": 0.5, "human_budget": 0.2}
LINE: dict[str, Any] = {
    "round": 0,
    "labelled": 10,
    "human_maps": 9,
    "generated_maps": 0,
    "empty_maps": 1,
    "accuracy": 0.5,
    "dice": None,
    "dice_floor": float("nan"),
    "seconds": 3.0,
    "people": {"labelled": 10, "maps": 9, "skipped": 0, "annotators": 1, "seconds": 4.0, "later": 1}
    | {"label_seconds": None, "map_seconds": 4.0},
    "a field of a later version": 7,
}


def turns(**options: Any) -> Turns:
    config = Config(**{**HALF, **options})
    return Turns.of(config, config.plan(100))


@pytest.mark.parametrize(
    ("regime", "sources"),
    [
        ("b1", ["none"] * 5),
        ("b2", ["human"] * 5),
        ("sal", ["human", "human", *["interpretability"] * 3]),
        ("sal-single", ["human", "human", *["accuracy"] * 3]),
        ("no-ai-saliency", ["human", "human", *["none"] * 3]),
        ("tait", ["human", "human", *["teacher"] * 3]),
        ("segmenter", ["segmenter"] * 5),
    ],
)
def test_the_map_source_of_every_query(regime: str, sources: list[str]) -> None:
    mine = turns(regime=regime, segmenter_masks="masks" if regime == "segmenter" else None)
    assert [mine.source(query_index, []) for query_index in range(5)] == sources
    assert mine.certain_sources() == sources
    drawers = [source if source not in ("human", "segmenter") else "none" for source in sources]
    assert [mine.drawer(query_index, []) for query_index in range(5)] == drawers
    assert [mine.drawer_after(round_index, []) for round_index in range(5)] == [*drawers[1:], "none"]


def test_a_generator_draws_in_the_models_place() -> None:
    assert turns(generator="mine.py:draw").source(2, []) == "callable"
    assert turns(generator="mine.py:draw").source(1, []) == "human"


def test_a_model_on_trial_draws_beside_people_and_then_takes_over() -> None:
    mine = turns(human_budget="auto")
    assert [mine.source(query_index, []) for query_index in range(3)] == ["human"] * 3
    assert [mine.drawer(query_index, []) for query_index in range(3)] == ["none", *["interpretability"] * 2]
    trials = [None, 0.5, 0.4, 0.4]  # no better than the best, twice
    assert (mine.source(3, trials), mine.source(4, trials)) == ("human", "interpretability")
    assert mine.certain_sources() == ["human", *["interpretability"] * 4]  # from the first trial on it may


def test_the_work_of_a_round_counts_its_models() -> None:
    assert [turns().work(round_index, []) for round_index in range(5)] == [10, 40, 60, 80, 50]
    assert [turns(regime="b1").work(round_index, []) for round_index in range(5)] == [10, 20, 30, 40, 50]


def loaded(*lines: dict[str, Any]) -> Run:
    """A run of 100 training images with some finished rounds."""
    rounds = [Round.of(line) for line in lines]
    splits = {"train": [str(number) for number in range(100)]}
    return Run(Path("runs/it"), Config(**HALF), ["a", "b"], rounds, None, {"splits": splits})


def test_the_table_fits_80_columns_and_counts_from_one() -> None:
    first = loaded(LINE)
    # 10 images took 3 s: 230 more, counted by model
    assert seconds_left(first) == pytest.approx(0.3 * (40 + 60 + 80 + 50))
    shown = row(first, first.rounds[-1])
    assert shown.split() == ["1/5", "10", "9", "0", "1", ".500", *"------", "3.0", "1", "min", "9", "s"]
    assert max(len(shown), len(HEADER)) <= 80
    last = loaded(*({**LINE, "round": number} for number in range(5)))
    assert row(last, last.rounds[-1]).split()[-1] == "-"


@pytest.mark.parametrize(
    ("seconds", "left"),
    [
        ((3.0, 6.0), 0.1 * (60 + 80 + 50) + 3 * 2.0),  # 2 s, and 0.1 s for each image
        ((3.0, 2.0), 3 * 2.5),  # they take as long whatever their work: the first one warmed up
        ((1.0, 7.0), 290 / 1700 * (60 + 80 + 50)),  # the best line through 0
    ],
)
def test_what_is_left_follows_from_the_rounds_so_far(seconds: tuple[float, float], left: float) -> None:
    """The first two rounds have a work of 10 and 40, the others of 60, 80 and 50."""
    lines = [{**LINE, "round": number, "seconds": one} for number, one in enumerate(seconds)]
    assert seconds_left(loaded(*lines)) == pytest.approx(left)


def test_a_line_of_another_version_is_read() -> None:
    read = Round.of(LINE)
    assert (read.labelled, read.dice, read.dice_floor, read.trial_dice) == (10, None, None, None)
    assert read.people is not None
    assert (read.people.maps, read.people.map_seconds) == (9, 4.0)
    with pytest.raises(KeyError, match="accuracy"):
        Round.of({name: value for name, value in LINE.items() if name != "accuracy"})


def test_half_a_last_line_does_not_count(tmp_path: Path) -> None:
    whole = json.dumps({"round": 0}) + "\n"
    file = tmp_path / "rounds.jsonl"
    file.write_text(whole + '{"round": 1, "lab')
    folder = RunFolder(tmp_path)
    assert folder.rounds(mend=False) == [{"round": 0}]
    assert file.read_text() != whole
    assert folder.rounds() == [{"round": 0}]
    assert file.read_text() == whole
    file.write_text("{}\n" + whole)
    with pytest.raises(InputError, match="line 1 is damaged"):
        folder.rounds()
