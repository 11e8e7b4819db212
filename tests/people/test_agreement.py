"""Kappa of classes and Dice of maps between people, beside scikit-learn and the definition in float64."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from sal_fast.errors import InputError
from sal_fast.people.agreement import Agreement, agreement, dice
from sal_fast.people.answers import Answers
from sal_fast.people.question import Answer

CLASSES = ("cat", "dog", "hen")
EMPTY = np.zeros((6, 8), dtype=np.uint8)


def said(name: str, label: str | None, who: str, mask: np.ndarray | None = None, **more: Any) -> Answer:
    return Answer(name, label, mask, who, None, label is None, **more)


def kept(folder: Path, *answers: Answer) -> Answers:
    there = Answers(folder)
    there.add(answers)
    return Answers(folder)


def found(folder: Path, *answers: Answer) -> Agreement:
    one = agreement([kept(folder, *answers)])
    assert one is not None
    return one


def disc(rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random((6, 8)) < rng.uniform(0.1, 0.9), 255, 0).astype(np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_of_two_people_it_is_cohens_kappa(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    ann = rng.choice(CLASSES, 30).tolist()
    ben = [label if rng.random() < 0.6 else str(rng.choice(CLASSES)) for label in ann]
    answers = [said(f"a/{i}", label, "ann") for i, label in enumerate(ann)]
    answers += [said(f"a/{i}", label, "Ben") for i, label in enumerate(ben)][::-1]
    answers += [
        said("b", "cat", "ann"),
        said("c", "cat", "Ben"),
        said("d", None, "Ben"),
        said("d", "cat", "ann"),
    ]
    one = found(tmp_path, *answers)
    assert (one.people, one.images, one.map_images, one.dice, one.no_kappa) == (2, 30, 0, None, "")
    assert one.kappa == pytest.approx(cohen_kappa_score(ann, ben), abs=1e-12)
    assert one.same == pytest.approx(np.mean([a == b for a, b in zip(ann, ben, strict=True)]))
    (pair,) = one.pairs
    assert (pair.one, pair.other, pair.images, pair.kappa) == ("ann", "Ben", 30, one.kappa)


@pytest.mark.parametrize("seed", range(3))
def test_of_several_people_in_several_queries(seed: int, tmp_path: Path) -> None:
    """Means over pairs, weighted by their images, and over images of the mean over pairs of maps."""
    rng = np.random.default_rng(seed)
    queries, truth = [], {}
    for number in range(2):  # an id that comes in two queries is two questions
        answers = []
        for i, who in ((i, who) for who in ("cy", "ann", "ben", "dan") for i in range(20)):
            if rng.random() < 0.5:
                mask = disc(rng) if rng.random() < 0.7 else None
                answers.append(said(str(i), str(rng.choice(CLASSES[:2])), who, mask))
                truth[number, i, who] = answers[-1]
        queries.append(kept(tmp_path / str(number), *answers))
    one = agreement(queries)
    assert one is not None
    images = [(number, i) for number in range(2) for i in range(20)]
    people = ("cy", "ann", "ben", "dan")
    total = weights = 0.0
    for pair in one.pairs:
        both = [
            (truth[(*image, pair.one)].label, truth[(*image, pair.other)].label)
            for image in images
            if (*image, pair.one) in truth and (*image, pair.other) in truth
        ]
        assert pair.images == len(both)
        assert pair.kappa == pytest.approx(cohen_kappa_score(*zip(*both, strict=True)), abs=1e-12)
        assert pair.same == pytest.approx(np.mean([a == b for a, b in both]))
        total, weights = total + len(both) * pair.kappa, weights + len(both)
    assert one.kappa == pytest.approx(total / weights, abs=1e-12)
    assert len(one.pairs) == 6
    means = []
    for image in images:
        masks = [truth[(*image, who)].mask for who in people if (*image, who) in truth]
        pairs = [by_definition(a, b) for a, b in combinations([m for m in masks if m is not None], 2)]
        means += [np.mean(pairs)] if pairs else []
    assert one.dice == pytest.approx(np.mean(means), abs=1e-12)
    assert (one.people, one.map_images, one.empty_images) == (4, len(means), 0)
    assert (one.own_dice, one.own_images) == (one.dice, one.map_images)


def by_definition(one: np.ndarray, other: np.ndarray) -> float:
    a, b = (one > 127).astype(np.float64), (other > 127).astype(np.float64)
    return float(2 * (a * b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("seed", range(5))
def test_dice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = disc(rng), disc(rng)
    assert dice(one, other) == pytest.approx(by_definition(one, other), abs=1e-12)
    assert dice(one, one) == 1
    assert dice(one, EMPTY) == dice(EMPTY, one) == 0
    assert dice(EMPTY, EMPTY) == 1


def test_nobody_has_an_image_in_common(tmp_path: Path) -> None:
    assert agreement([]) is None
    there = kept(tmp_path, said("a", "cat", "ann"), said("b", "cat", "ben"), said("c", None, "ann"))
    there.add([said("c", "dog", "ben")])
    assert agreement([there]) is None
    assert (
        agreement(
            [kept(tmp_path / "x", said("a", "cat", "Ann")), kept(tmp_path / "y", said("a", "cat", "b"))]
        )
        is None
    )


def test_kappa_is_undefined(tmp_path: Path) -> None:
    """Both say one class alone: equal by chance alone, so there is no kappa, and a reason is given."""
    one = found(tmp_path / "one", *(said(str(i), "cat", who) for who in ("ann", "ben") for i in range(9)))
    assert (one.kappa, one.same, one.images) == (None, 1.0, 9)
    assert "one single class" in one.no_kappa
    other = found(
        tmp_path / "two", *(said(str(i), c, w) for w, c in (("a", "cat"), ("b", "dog")) for i in range(9))
    )
    assert (other.kappa, other.no_kappa) == (0.0, "")
    # a pair without kappa leaves the mean to the others
    more = [said(str(i), "cat", who) for who in ("ann", "ben") for i in range(9)]
    more += [said("9", "cat", "cy"), said("8", "dog", "cy"), said("9", "cat", "dan"), said("8", "dog", "dan")]
    mixed = found(tmp_path / "three", *more)
    assert {(pair.one, pair.other): pair.kappa for pair in mixed.pairs}["ann", "ben"] is None
    assert {(pair.one, pair.other): pair.kappa for pair in mixed.pairs}["cy", "dan"] == 1.0
    assert mixed.kappa is not None


def test_answers_that_are_no_opinion_of_their_own(tmp_path: Path) -> None:
    """Whoever settles a tie knows the others' classes; two maps that began as a model's are alike anyway."""
    rng = np.random.default_rng(0)
    full, half = np.full_like(EMPTY, 255), np.where(np.arange(8) < 4, 255, 0).astype(np.uint8) + EMPTY
    one = found(
        tmp_path,
        *(said("a", "cat", "ann", full), said("a", "dog", "ben", half, kind="drawn")),
        said("a", "cat", "cy", settles=True),
        *(said("b", "dog", "ann", full, kind="accepted"), said("b", "dog", "ben", full, kind="corrected")),
        *(said("c", "dog", "ann", EMPTY), said("c", "dog", "ben", EMPTY)),
        said("d", "cat", "ann", disc(rng)),
    )
    assert (one.people, one.images, len(one.pairs)) == (2, 3, 1)
    assert one.same == pytest.approx(2 / 3)
    assert one.dice == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert (one.map_images, one.empty_images, one.own_images) == (3, 1, 2)
    assert one.own_dice == pytest.approx((2 / 3 + 1) / 2)
    mixed = found(
        tmp_path / "mixed",
        said("a", "cat", "ann", full, kind="drawn"),
        said("a", "cat", "b", half, kind="accepted"),
    )
    assert mixed.own_dice == mixed.dice == pytest.approx(2 / 3)


def test_maps_alone_and_files_that_are_gone(tmp_path: Path) -> None:
    """A map without a class counts for Dice alone; a lost file is named."""
    there = kept(
        tmp_path, Answer("a", None, EMPTY, "ann", None, False), Answer("a", None, EMPTY, "ben", None, False)
    )
    one = agreement([there])
    assert one is not None
    assert (one.kappa, one.same, one.images, one.dice) == (None, None, 0, 1.0)
    assert one.no_kappa == "no two people gave a class to the same image"
    there.add([Answer("a", None, EMPTY[:3], "ben", None, False)])
    with pytest.raises(InputError, match=r"its size differs from that of another map of 'a'"):
        agreement([there])
    (tmp_path / "drawn/0/a.png").unlink()
    with pytest.raises(InputError, match=r"a\.png cannot be read"):
        agreement([there])
