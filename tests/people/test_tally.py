"""Counts and times of what people did, what was saved, and how a round's line keeps them."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sal_fast.experiment.record import People
from sal_fast.people.agreement import agreement
from sal_fast.people.answers import Answers, tally
from sal_fast.people.question import Answer
from sal_fast.people.saved import by_correcting, by_handing_over

MASK = np.full((4, 4), 255, dtype=np.uint8)
OLD = ("labelled", "maps", "skipped", "annotators", "answers_with_map", "answers_label_only")
OLD_SECONDS = ("seconds", "map_seconds", "label_seconds")


def said(name: str, seconds: float | None, kind: Any = None, who: str = "ann", **more: Any) -> Answer:
    return Answer(name, "cat", None if kind is None else MASK, who, seconds, False, kind=kind, **more)


def kept(folder: Path, *answers: Answer) -> Answers:
    there = Answers(folder)
    there.add(answers)
    return Answers(folder)


def times(folder: Path, seconds: list[float], kind: Any = None) -> Answers:
    return kept(folder, *(said(str(i), each, kind) for i, each in enumerate(seconds)))


def test_answers_of_tools_that_tell_little(tmp_path: Path) -> None:
    there = kept(
        tmp_path,
        Answer("a", "cat", MASK, "ann", None, False),
        Answer("b", "dog", None, "ann", None, False),
        Answer("c", None, None, "", None, True),  # `query import --skip-rest`
    )
    count = tally([there])
    assert [*count] == [*OLD, *OLD_SECONDS, "by_kind", "by_person"]
    assert [count[name] for name in OLD] == [2, 1, 1, 1, 1, 1]
    assert [count[name] for name in OLD_SECONDS] == [None] * 3
    untimed = {"answers": 1, "timed": 0, "seconds": None}
    assert count["by_kind"] == {"map": untimed, "class": untimed}
    assert [(row["name"], row["answers"], row["skipped"]) for row in count["by_person"]] == [("ann", 2, 0)]
    assert tally([])["by_person"] == []


def test_times_by_kind_by_person_and_by_step(tmp_path: Path) -> None:
    one = kept(
        tmp_path / "one",
        said("a", 20.0, "drawn", idle=5.0, class_seconds=2.0, stroke_seconds=4.0),
        said("b", 30.0, "drawn", "Ben", idle=1.5, class_seconds=3.0, stroke_seconds=6.0),
        said("c", 8.0, "corrected", class_seconds=1.0, stroke_seconds=3.0),
        said("d", None, "box", "ben"),
    )
    two = kept(
        tmp_path / "two",
        said("a", 3.0, class_seconds=2.5, idle=0.25),
        Answer("b", None, None, "BEN", 4.0, True, reason="unclear"),
    )
    count = tally(iter([one, two]))
    assert count["seconds"] == 65.0
    assert count["idle_seconds"] == 6.75
    assert count["by_kind"] == {
        "drawn": {"answers": 2, "timed": 2, "seconds": 50.0},
        "corrected": {"answers": 1, "timed": 1, "seconds": 8.0},
        "box": {"answers": 1, "timed": 0, "seconds": None},
        "class": {"answers": 1, "timed": 1, "seconds": 3.0},
        "skipped": {"answers": 1, "timed": 1, "seconds": 4.0},
    }
    ann = {"name": "ann", "answers": 3, "maps": 2, "skipped": 0, "timed": 3, "seconds": 31.0}
    ben = {"name": "Ben", "answers": 2, "maps": 2, "skipped": 1, "timed": 2, "seconds": 34.0}
    assert count["by_person"] == [ann | {"idle_seconds": 5.25}, ben | {"idle_seconds": 1.5}]
    assert count["steps"] == {
        "class": {"answers": 4, "mean": 2.125, "median": 2.25},
        "stroke": {"answers": 3, "mean": 4.333, "median": 4.0},
        "done": {"answers": 3, "mean": 19.333, "median": 20.0},
    }


def test_constant_seconds_give_an_interval_without_width(tmp_path: Path) -> None:
    there = [times(tmp_path / "0", [25.0] * 12, "drawn"), times(tmp_path / "1", [10.0] * 30)]
    found = by_handing_over(there, 1)
    assert found is not None
    assert (found.seconds, found.low, found.high) == (450.0, 450.0, 450.0)
    assert (found.answers, found.slow, found.quick) == (30, 25.0, 10.0)
    assert (found.slow_timed, found.quick_timed, found.few) == (12, 30, False)
    assert by_handing_over(there, None) is None
    assert by_handing_over(there[:1], 1) is None  # nobody has answered without a map
    assert by_handing_over(there, 2) is None


def test_the_interval_of_two_answers_each(tmp_path: Path) -> None:
    """Each side's mean is one of 3 values with the probabilities 1/4, 1/2, 1/4, so 1/16 is at either end."""
    found = by_handing_over(
        [times(tmp_path / "0", [20.0, 30.0], "drawn"), times(tmp_path / "1", [4.0, 8.0])], 1
    )
    assert found is not None
    assert found.few
    ends = [2 * (slow - quick) for slow, quick in product((20.0, 30.0), (4.0, 8.0))]
    assert (found.low, found.seconds, found.high) == (min(ends), 38.0, max(ends))


def test_the_interval_is_that_of_a_normal_mean(tmp_path: Path) -> None:
    """With many answers it is mean -+ 1.96 sigma, and repeats itself."""
    rng = np.random.default_rng(1)
    slow, quick = rng.gamma(9, 3, 400), rng.gamma(4, 2, 600)
    there = [times(tmp_path / "0", slow.tolist(), "drawn"), times(tmp_path / "1", quick.tolist())]
    found = by_handing_over(there, 1)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    half = 600 * 1.96 * np.sqrt(slow.var() / 400 + quick.var() / 600)
    assert found.seconds == pytest.approx(600 * (slow.mean() - quick.mean()), abs=1e-2)
    assert found.seconds - found.low == pytest.approx(half, rel=0.05)
    assert found.high - found.seconds == pytest.approx(half, rel=0.05)
    assert by_handing_over(there, 1) == found


def test_which_answers_are_compared(tmp_path: Path) -> None:
    """Skipped images, answers without a time, and maps on the wrong side of the hand-over do not count."""
    before = kept(
        tmp_path / "0",
        *(said("a", 20.0, "drawn"), said("b", 30.0, "drawn"), said("c", 9.0), said("d", None, "drawn")),
        Answer("e", None, None, "ann", 99.0, True),
    )
    after = kept(
        tmp_path / "1",
        *(said("a", 5.0), said("a", 7.0, who="ben"), said("b", None), said("c", 70.0, "drawn")),
        Answer("e", None, None, "ann", 99.0, True),
    )
    found = by_handing_over([before, after], 1)
    assert found is not None
    assert (found.slow, found.quick, found.answers) == (25.0, 6.0, 3)  # of a picture by two people, both
    assert (found.slow_timed, found.quick_timed) == (2, 2)
    single = by_handing_over([before, times(tmp_path / "2", [5.0])], 1)
    assert single is not None
    assert (single.seconds, single.low, single.high, single.few) == (20.0, None, None, True)


def test_what_correcting_saved(tmp_path: Path) -> None:
    there = kept(
        tmp_path,
        *(said(f"d{i}", 30.0, "drawn") for i in range(3)),
        *(said(f"c{i}", 12.0, "corrected") for i in range(2)),
        *(said("a", 3.0, "accepted"), said("x", 1.0, "box"), said("y", 1.0)),
    )
    found = by_correcting([there])
    assert found is not None
    assert (found.seconds, found.answers, found.slow, found.quick) == (63.0, 3, 30.0, 9.0)
    assert by_correcting([times(tmp_path / "none", [3.0, 4.0], "drawn")]) is None


def test_a_line_keeps_it_all(tmp_path: Path) -> None:
    there = [
        kept(
            tmp_path / "0",
            said("a", 20.0, "drawn", idle=1.0, class_seconds=2.0),
            said("a", 9.0, "accepted", "b"),
        ),
        times(tmp_path / "1", [3.0, 4.0]),
    ]
    more = {
        "saved": by_handing_over(there, 1),
        "corrected": by_correcting(there),
        "agreement": agreement(there),
    }
    line = json.loads(json.dumps(tally(there) | {name: asdict(one) for name, one in more.items() if one}))
    people = People.of(line)
    assert {name: getattr(people, name) for name in more} == more
    assert {kind: asdict(one) for kind, one in people.by_kind.items()} == line["by_kind"]
    assert [asdict(one) for one in people.by_person] == line["by_person"]
    assert people.steps["class"].mean == 2.0
    assert people.idle_seconds == 1.0
    old = People.of({name: line[name] for name in ("labelled", "maps", "skipped", "annotators")})
    assert (old.seconds, old.by_kind, old.by_person, old.steps, old.saved) == (None, {}, [], {}, None)
    with pytest.raises(KeyError):
        People.of({})
