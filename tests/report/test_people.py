"""People in a report: the sentences on what was saved and how far they agree, the tables and the figure."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from report_folders import let_people_answer, make_run
from sketches import Sketch

from sal_fast.errors import InputError
from sal_fast.experiment import loading
from sal_fast.experiment.trackers.base import flat
from sal_fast.experiment.trackers.csv_files import Csv
from sal_fast.people.agreement import Agreement, Pair
from sal_fast.people.answers import ANSWER_KINDS
from sal_fast.people.saved import Saved
from sal_fast.report import people, write
from sal_fast.report.runs import load

SAVED = Saved(600.0, 480.0, 725.0, 40, 25.0, 10.0, 80, 40)
ANN_BEN = Pair("Ann", "Ben", 30, 0.9, 0.8, 12, 0.75)
AGREED = Agreement(2, 30, 0.9, 0.8, "", 0.75, 12, 0, 0.75, 12, [ANN_BEN])


def told(folder: Path, **entry: Any) -> list[str]:
    """The sentences on a run whose last round has an entry `people` with these parts."""
    run = make_run(folder, rounds=2, examples=0)
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    counts = {"labelled": 60, "maps": 40, "skipped": 0, "annotators": 2}
    parts = {name: one if isinstance(one, dict) else asdict(one) for name, one in entry.items()}
    lines[-1]["people"] = counts | parts
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return people.sentences(load([run])[0][0])


@pytest.mark.parametrize(
    ("saved", "start"),
    [
        (
            SAVED,
            "Giving classes alone after the hand-over saved 10 min 0 s (8 min 0 s to 12 min 5 s). Each of "
            "these 40 answers took 10.0 s, and one with a map 25.0 s (mean of 80).",
        ),
        (
            replace(SAVED, seconds=-60.0, low=-90.0, high=-30.0),
            "Giving classes alone after the hand-over cost 1 min 0 s more (30.0 s to 1 min 30 s). Each",
        ),
        (
            replace(SAVED, low=-50.0),
            "Giving classes alone after the hand-over: it cannot be told if this saved time (−50.0 s to 12 "
            "min 5 s). Each",
        ),
        (
            replace(SAVED, low=None, high=None, answers=1, quick_timed=1),
            "Giving classes alone after the hand-over saved 10 min 0 s; there are too few answers for an "
            "interval. The one answer of this kind took",
        ),
    ],
)
def test_what_was_saved(saved: Saved, start: str, tmp_path: Path) -> None:
    (said,) = told(tmp_path / "run", saved=saved)
    assert said.startswith(start)


def test_few_answers_are_named(tmp_path: Path) -> None:
    few = replace(SAVED, quick_timed=9)
    said = told(tmp_path / "few", saved=few, corrected=SAVED)
    assert said[0].endswith("Only 9 of these answers have a time.")
    assert said[1].startswith("Correcting the model's maps saved 10 min 0 s")
    assert said[2] == "An interval over fewer than 10 answers of a kind is too narrow."
    assert not told(tmp_path / "none")


@pytest.mark.parametrize(
    ("found", "sentences"),
    [
        (
            AGREED,
            [
                "30 images have a class by two people or more: kappa is 0.80 (of two people), and two "
                "answers name the same class in 90 % of the cases.",
                "12 images have two maps or more, whose mean Dice is 0.75.",
            ],
        ),
        (
            replace(AGREED, kappa=None, no_kappa="they said one thing", dice=None, own_dice=None, images=1),
            [
                "1 image has a class by two people or more: kappa is undefined, because they said one thing, "
                "and two answers name the same class in 90 % of the cases."
            ],
        ),
        (
            replace(AGREED, images=0, empty_images=2, own_dice=0.5, own_images=1),
            [
                "12 images have two maps or more, whose mean Dice is 0.75; 2 of them have empty maps alone, "
                "which counts as 1.",
                "Two maps that began as the same model's map are alike whatever people think: without such "
                "pairs the mean Dice is 0.50, over 1 image.",
            ],
        ),
        (
            replace(AGREED, pairs=[ANN_BEN] * 3, own_dice=None, own_images=0),
            [
                "30 images have a class by two people or more: kappa is 0.80 (mean over 3 pairs of people), "
                "and two answers name the same class in 90 % of the cases.",
                "12 images have two maps or more, whose mean Dice is 0.75.",
                "Two maps that began as the same model's map are alike whatever people think, and here all "
                "pairs are such.",
            ],
        ),
    ],
)
def test_agreement(found: Agreement, sentences: list[str], tmp_path: Path) -> None:
    assert told(tmp_path / "run", agreement=found) == sentences


def test_the_page_and_its_tables(tmp_path: Path, sketches: list[Sketch]) -> None:
    run = make_run(tmp_path / "run", people=True, examples=0)
    let_people_answer(run)
    html = write([run], tmp_path / "out")
    page = " ".join(html.read_text(encoding="utf-8").split())
    (said,) = (people.sentences(one) for one in load([run])[0])
    assert len(said) == 6
    for sentence in said:
        assert sentence.replace("'", "&#39;") in page
    for heading in ("Answers by kind (4)", "Answers by person (2)", "Agreement of each two people (1)"):
        assert heading in page
    line = json.loads((run / "rounds.jsonl").read_text().splitlines()[-1])["people"]
    kinds = pl.read_csv(tmp_path / "out/people-kinds.csv")
    assert kinds["kind"].to_list() == ["drawn", "corrected", "accepted", "class"]
    assert kinds["answers"].to_list() == [one["answers"] for one in line["by_kind"].values()]
    assert kinds["share"].sum() == pytest.approx(1)
    each = [one["seconds"] / one["timed"] for one in line["by_kind"].values()]
    assert kinds["seconds_each"].to_list() == pytest.approx(each)
    persons = pl.read_csv(tmp_path / "out/people-persons.csv")
    assert persons["person"].to_list() == ["Ann", "Ben"]
    assert persons["idle_seconds"].to_list() == [280.0, 28.0]
    pair = pl.read_csv(tmp_path / "out/people-pairs.csv").row(0, named=True)
    assert (pair["one"], pair["other"], pair["images"], pair["map_images"]) == ("Ann", "Ben", 14, 8)
    row = pl.read_csv(tmp_path / "out/people.csv").row(0, named=True)
    assert [row["seconds_saved"], row["seconds_saved_low"], row["seconds_saved_high"]] == [
        line["saved"][name] for name in ("seconds", "low", "high")
    ]
    assert row["corrected_saved"] == line["corrected"]["seconds"]
    assert (row["kappa"], row["map_dice"]) == (line["agreement"]["kappa"], line["agreement"]["dice"])
    assert (tmp_path / "out/people.png").exists()
    drawn = line["by_kind"]["drawn"]["answers"]
    assert any(f"map, drawn ({drawn})" in sketch.texts for sketch in sketches)


def test_nothing_where_nobody_answered(tmp_path: Path, sketches: list[Sketch]) -> None:
    html = write([make_run(tmp_path / "run", rounds=2, examples=0)], tmp_path / "out")
    assert "People in the loop" not in html.read_text(encoding="utf-8")
    assert not [*(tmp_path / "out").glob("people*")]


def test_runs_of_an_older_sal_fast_and_of_tools_that_tell_little(
    tmp_path: Path, sketches: list[Sketch]
) -> None:
    """Sums alone give what was saved, without an interval; a run without any maps saves nothing."""
    make_run(tmp_path / "runs/old", people=True, examples=0)
    for name, regime in (("tool", "sal"), ("bare", "b1")):
        let_people_answer(make_run(tmp_path / "runs" / name, regime=regime, seed=1, examples=0), page=False)
    write([tmp_path / "runs"], tmp_path / "out")
    table = {row["run"]: row for row in pl.read_csv(tmp_path / "out/people.csv").to_dicts()}
    assert table["old"]["seconds_saved"] == 15 * 60
    assert table["old"]["seconds_saved_low"] is None
    assert table["tool"]["seconds_saved_low"] < table["tool"]["seconds_saved"]
    assert table["bare"]["seconds_saved"] is None
    assert table["tool"]["idle_seconds"] is None
    kinds = pl.read_csv(tmp_path / "out/people-kinds.csv")
    assert kinds.filter(run="tool")["kind"].to_list() == ["map", "class"]
    assert {path.name for path in (tmp_path / "out").glob("people*.png")} == {
        "people.png"
    }  # b1's has one kind


def test_every_kind_has_a_name() -> None:
    assert [*people.KINDS] == [*ANSWER_KINDS]


def test_answers_that_cannot_be_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=2, examples=0)
    let_people_answer(run)
    (run / "start/answers.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match=r"answers\.json: the answers cannot be read"):
        write([run], tmp_path / "out")


def test_trackers_get_numbers_without_names(tmp_path: Path) -> None:
    """Names of people would leave this machine, and a program may refuse them as names of numbers."""
    run = make_run(tmp_path / "run", rounds=2, examples=0)
    let_people_answer(run)
    loaded = loading.load(run)
    numbers = dict(flat(loaded.rounds[-1]))
    assert numbers["people/by_person/1/answers"] == 6
    assert numbers["people/agreement/pairs/0/images"] == 6
    assert not [name for name in numbers if "Ann" in name or "Ben" in name]
    Csv()(loaded, loaded.rounds[-1])
    text = (run / "rounds.csv").read_text()
    assert "people/by_kind/drawn/seconds" in text.splitlines()[0]
    assert "Ann" not in text
