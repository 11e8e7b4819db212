"""The contract that every criterion of this package passes, and what `query.select` makes of an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from sal_fast import plugins, query
from sal_fast.errors import InputError
from sal_fast.query import Labelled, Pool
from sal_fast.testing import check_criterion

CRITERIA = plugins.names("criterion")


def pool(size: int = 50, classes: int = 4, labelled: int = 6, seed: int = 0) -> Pool:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, classes, generator=generator)
    features = torch.randn(size, 8, generator=generator)
    known = Labelled(features=torch.randn(labelled, 8, generator=generator))
    return Pool(numbers(size), logits=logits, features=features, labelled=known)


def numbers(size: int) -> list[str]:
    return list(map(str, range(size)))


def picked(criterion: Any, given: Pool, k: int, seed: int = 0, **more: Any) -> list[int]:
    return query.select(criterion, given, k, seed=seed, **more).positions.tolist()


@pytest.fixture(params=CRITERIA)
def criterion(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_six_are_found() -> None:
    assert {"random", "margin", "least-confidence", "entropy", "badge", "core-set"} <= set(CRITERIA)


def test_it_passes_what_an_author_is_held_to(criterion: str) -> None:
    check_criterion(criterion)


@pytest.mark.parametrize("k", [0, 1, 7, 50, 80])
@pytest.mark.parametrize("ties", ["key", "position"])
def test_picks_from_the_pool_without_repeats(criterion: str, k: int, ties: query.Ties) -> None:
    positions, scores = query.select(criterion, pool(), k, seed=3, ties=ties)
    assert positions.dtype == torch.int64
    assert scores.dtype == torch.float64
    assert len(positions) == len(scores) == min(k, 50)
    assert len(set(positions.tolist())) == len(positions)
    assert all(0 <= p < 50 for p in positions.tolist())
    assert scores.isfinite().all()
    assert (scores.diff() <= 0).all()


def test_empty_pool(criterion: str) -> None:
    assert picked(criterion, pool(size=0), 5) == []


def test_one_class(criterion: str) -> None:
    assert len(set(picked(criterion, pool(classes=1), 10))) == 10


# --- ties -------------------------------------------------------------------------------------------------


def by_class(size: int, *, tied_features: bool = True) -> Pool:
    """Sorted by class, with saturated logits: nothing tells the images of the pool apart."""
    logits = 1000 * torch.eye(3).repeat_interleave(size // 3, 0)
    given = pool(size).replace(logits=logits)
    return given.replace(features=torch.ones(size, 8)) if tied_features else given


def test_a_pool_sorted_by_class_gives_a_mix_of_classes(criterion: str) -> None:
    for seed in range(5):
        positions = picked(criterion, by_class(60), 30, seed)
        assert {position // 20 for position in positions} == {0, 1, 2}, (seed, positions)


def test_the_order_of_the_rows_does_not_matter(criterion: str) -> None:
    shuffled = torch.randperm(51, generator=torch.Generator().manual_seed(5))
    for given in (pool(51), by_class(51), by_class(51, tied_features=False)):
        moved = given.replace(
            ids=[given.ids[row] for row in shuffled],
            logits=given.logits[shuffled],
            features=given.features[shuffled],
        )
        here = query.select(criterion, given, 20, seed=3)
        there = query.select(criterion, moved, 20, seed=3)
        assert [given.ids[at] for at in here.positions] == [moved.ids[at] for at in there.positions]
        assert torch.equal(here.scores, there.scores)


def test_what_is_not_tied_is_picked_by_either_rule(criterion: str) -> None:
    if criterion not in ("random", "badge", "kmeans", "typiclust"):  # these draw by position
        assert picked(criterion, pool(), 20) == picked(criterion, pool(), 20, ties="position")


PICKS_OF_OLD = {
    "random": ([7, 5, 9, 6, 25, 3, 11, 21], [7, 5, 9, 6, 25, 3]),
    "margin": ([0, 3, 5, 8, 10, 13, 15, 18], [0, 1, 2, 3, 4, 5]),
    "least-confidence": ([0, 3, 5, 8, 10, 13, 15, 18], [0, 1, 2, 3, 4, 5]),
    "entropy": ([0, 3, 5, 8, 10, 13, 15, 18], [0, 1, 2, 3, 4, 5]),
    "badge": ([18, 28, 22, 24, 15, 26, 11, 9], [0, 1, 2, 3, 4, 5]),
    "core-set": ([3, 0, 4, 1, 5, 6, 2, 7], [3, 0, 4, 1, 5, 6]),
}


@pytest.mark.parametrize("criterion", PICKS_OF_OLD)
def test_ties_by_position_are_those_of_runs_before_the_rule(criterion: str) -> None:
    rows, columns = torch.arange(30)[:, None], torch.arange(4)[None]
    features = (rows * 3 + columns * 5) % 7 * 1.0
    saturated = 1000 * torch.eye(3).repeat_interleave(10, 0)
    labelled = Labelled(features=features[[2, 9]] + 0.5)
    usual, tied = PICKS_OF_OLD[criterion]
    for logits, expected in (((rows * 7 + columns * 11) % 5 * 1.0, usual), (saturated, tied)):
        given = Pool(numbers(30), logits=logits, features=features, labelled=labelled)
        assert picked(criterion, given, len(expected), seed=3, ties="position") == expected
        assert picked(criterion, given, len(expected), seed=3) != expected


def test_keys_are_the_first_64_bits_of_blake2b() -> None:
    """Known from `printf '\\0\\0\\0\\0\\0\\0\\0\\007é' | b2sum | head -c 16`, and so on."""
    keys = query.ties._keys(["a", "é", "b"], 7).tolist()
    assert keys == [0xE822FD4B81D3E84D, 0x616B75250745D399, 0x844D536318A7A82E]
    assert query.ties._keys(["b/007"], 300).tolist() == [0x74109FB02D73D595]
    assert query.key_order(["a", "é", "b"], 7).tolist() == [1, 2, 0]


def test_equal_keys_fall_back_to_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query.ties, "_keys", lambda ids, seed: np.array([5] * len(ids), dtype=np.uint64))
    assert query.key_order(["b", "c", "a", "é", "a"], 0).tolist() == [2, 4, 0, 1, 3]
    same = Pool(["b", "c", "a"], logits=torch.zeros(3, 2))
    assert picked("margin", same, 3) == [2, 0, 1]


def test_the_keys_have_a_seed_of_their_own() -> None:
    given = by_class(60)
    assert picked("margin", given, 10, 1, key_seed=7) == picked("margin", given, 10, 2, key_seed=7)
    assert picked("margin", given, 10, 1, key_seed=7) == picked("margin", given, 10, 7)
    assert picked("margin", given, 10, 1, key_seed=7) != picked("margin", given, 10, 1)


def test_rows_in_key_order_are_not_copied() -> None:
    order = query.key_order(numbers(50), 3)
    given = pool().replace(ids=[str(row) for row in order.tolist()])
    seen: list[Pool] = []
    query.select(lambda pool, k, seed: seen.append(pool) or range(k), given, 5, seed=3)
    query.select(lambda pool, k, seed: seen.append(pool) or range(k), given, 5, seed=4)
    assert [one.features.data_ptr() == given.features.data_ptr() for one in seen] == [True, False]


def test_a_score_alone_needs_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query.ties, "roomy", lambda *shape: pytest.fail("a field was copied"))
    for name in ("margin", "least-confidence", "entropy", "random"):
        query.select(name, pool(), 5, seed=0)
    with pytest.raises(pytest.fail.Exception):
        query.select("badge", pool(), 5, seed=0)


def test_badge_draws_uniformly_where_all_gradients_are_zero() -> None:
    """Every image is picked about as often; the keys, which are those of the run, do not decide."""
    given = by_class(9)
    counts = np.bincount([at for seed in range(270) for at in picked("badge", given, 3, seed, key_seed=1)])
    assert counts.sum() == 3 * 270
    assert counts.min() > 58  # four standard deviations of 7.7 from the mean, 90
    assert counts.max() < 122
    one = by_class(9)
    one.logits[4] = torch.tensor([0.0, 1.0, 2.0])
    assert {picked("badge", one, 1, seed)[0] for seed in range(20)} == {4}  # the only gradient is the longest


# --- fields -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number_is_refused(criterion: str, value: float) -> None:
    for name in query.needs_of(criterion):
        given = pool()
        bad = given.labelled.features if name == "labelled" else getattr(given, name)
        bad[3, 0] = value
        named = "features of the labelled images" if name == "labelled" else name
        with pytest.raises(ValueError, match=f"{criterion}: {named} contain NaN"):
            query.select(criterion, given, 5, seed=0)


def test_what_is_needed_must_be_there(criterion: str) -> None:
    for name in query.needs_of(criterion):
        with pytest.raises(ValueError, match=f"the pool has no {name}"):
            query.select(criterion, pool().replace(**{name: None}), 5, seed=0)


def test_features_of_the_labelled_must_be_there() -> None:
    with pytest.raises(ValueError, match="no features of the labelled"):
        query.select("core-set", pool().replace(labelled=Labelled(["a"])), 5, seed=0)


def test_rows_must_match(criterion: str) -> None:
    if query.needs_of(criterion):
        with pytest.raises(ValueError, match="expected 49 rows"):
            query.select(criterion, pool().replace(ids=numbers(49)), 5, seed=0)


def test_a_criterion_is_given_what_it_declares() -> None:
    pictures = torch.arange(50).byte()[:, None, None, None].expand(50, 2, 2, 3)
    model = torch.nn.Linear(1, 1)
    given = pool().replace(images=lambda at: pictures[at], model=model, classes=["a", "b"])
    seen: list[Pool] = []

    def undeclared(pool: Pool, k: int, seed: int) -> list[int]:
        seen.append(pool)
        return list(range(k))

    declared = query.needs("images", "model")(lambda pool, k, seed: undeclared(pool, k, seed))
    query.select(undeclared, given, 3, seed=0)
    query.select(declared, given, 3, seed=0)
    first, second = seen
    assert len(first) == 50
    assert [first.has(name) for name in ("logits", "features", "labelled")] == [True] * 3
    assert [second.has(name) for name in ("logits", "features", "labelled")] == [False] * 3
    assert second.model is model
    assert second.classes == ["a", "b"]
    assert second.images([4, 0])[:, 0, 0, 0].tolist() == [int(second.ids[4]), int(second.ids[0])]
    with pytest.raises(AttributeError, match=r"no images.*needs\('images'"):
        first.images([0])
    with pytest.raises(AttributeError, match="no logits"):
        _ = second.logits
    with pytest.raises(ValueError, match=r"'logit'.*did you mean 'logits'"):
        query.needs("logit")  # type: ignore[arg-type]


# --- answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        [2, 0, 1],
        (2, 0, 1),
        np.array([1, 0, 2])[::-1],
        np.array([2, 0, 1], dtype=np.uint8),
        torch.tensor([2, 0, 1], dtype=torch.int32),
        ([2, 0, 1], [0.5, 0.25, -1]),
        (np.array([2, 0, 1]), torch.tensor([0.5, 0.25, -1])),
        query.Query(torch.tensor([2, 0, 1]), torch.tensor([0.5, 0.25, -1])),
    ],
    ids=str,
)
def test_what_a_criterion_may_return(answer: Any) -> None:
    found = query.select(lambda pool, k, seed: answer, pool(), 3, seed=0, ties="position")
    assert found.positions.tolist() == [2, 0, 1]
    scored = isinstance(answer, tuple) and len(answer) == 2
    assert found.scores.tolist() == ([0.5, 0.25, -1] if scored else [3, 2, 1])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], "got 0 positions"),
        ([0, 1], "expected 3 different positions of 0 to 49.*got 2 positions"),
        ([0, 1, 1], "got position 1 more than once"),
        ([0, 1, 50], "got position 50"),
        ([-1, 1, 2], "got position -1"),
        ([0.0, 1.0, 2.0], "whole numbers, got list"),
        ([True, False, True], "whole numbers, got list"),
        (np.ones((3, 1), dtype=int), r"whole numbers, got ndarray int64 \[3, 1\]"),
        (torch.tensor([0.5, 0.25, 0.75]), r"whole numbers, got Tensor torch.float32 \[3\]"),
        (None, "whole numbers, got NoneType"),
        ("abc", "whole numbers, got str"),
        (["a", "b", "c"], "whole numbers, got list"),
        (([0, 1, 2], [1.0]), "expected 3 scores"),
        (([0, 1, 2], [1.0, float("nan"), 0.0]), "NaN or infinity"),
        (([0, 1, 2], "abc"), "expected 3 scores"),
    ],
    ids=str,
)
def test_what_it_may_not_return(answer: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        query.select(lambda pool, k, seed: answer, pool(), 3, seed=0)


def test_bad_calls() -> None:
    with pytest.raises(InputError, match=r"'margins'; did you mean 'margin'\?.*random, margin"):
        query.select("margins", pool(), 5, seed=0)
    with pytest.raises(InputError, match="expected a function"):
        query.select(3, pool(), 5, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 0"):
        query.select("margin", pool(), -1, seed=0)
    with pytest.raises(ValueError, match="ties must be one of key, position, got 'lowest'"):
        query.select("margin", pool(), 1, seed=0, ties="lowest")  # type: ignore[arg-type]


# --- what is particular to each ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [("margin", [1, 2, 0]), ("least-confidence", [2, 1, 0]), ("entropy", [2, 1, 0])],
)
def test_what_each_criterion_asks_for_first(criterion: str, expected: list[int]) -> None:
    """Sure; torn between two; unsure of all, with one a little ahead."""
    probs = torch.tensor([[0.98, 0.01, 0.01], [0.495, 0.494, 0.011], [0.36, 0.32, 0.32]])
    assert picked(criterion, Pool(numbers(3), logits=probs.log()), 3) == expected


def test_random_depends_on_the_seed() -> None:
    assert len({tuple(picked("random", Pool(numbers(100)), 10, seed)) for seed in range(20)}) == 20


# --- the check itself -------------------------------------------------------------------------------------


def nothing(pool: Pool, k: int, seed: int) -> Sequence[int]:
    return range(k)


def too_few(pool: Pool, k: int, seed: int) -> Sequence[int]:
    return range(k - 1)


def rising(pool: Pool, k: int, seed: int) -> Any:
    return range(k), range(k)


def at_random(pool: Pool, k: int, seed: int) -> Any:
    return torch.randperm(len(pool))[:k]


def at_random_with_a_seed(pool: Pool, k: int, seed: int) -> Any:
    torch.manual_seed(seed)
    return torch.randperm(len(pool))[:k]


@query.needs("logits", any_order=True)
def by_position(pool: Pool, k: int, seed: int) -> Any:
    return pool.logits.amax(1).argsort(stable=True)[:k]


def centred(pool: Pool, k: int, seed: int) -> Any:
    pool.features.sub_(pool.features.mean(0))
    return range(k)


def grows(pool: Pool, k: int, seed: int) -> Any:
    pool.labelled.features.add_(1)
    return range(k)


def reads_the_model(pool: Pool, k: int, seed: int) -> Any:
    pool.model.eval()
    return range(k)


@query.needs("model")
def trains(pool: Pool, k: int, seed: int) -> Any:
    pool.model.train()
    return range(k)


@query.needs("logits")
def of_two(pool: Pool, k: int, seed: int) -> Any:
    return pool.logits[:, 0].topk(max(k, 2)).indices[:k]


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (too_few, "expected 1 different positions of 0 to 49.*got 0 positions"),
        (rising, "scores must not rise"),
        (at_random, "random generators .* must stay as they are"),
        (at_random_with_a_seed, "random generators .* must stay as they are"),
        (by_position, "must not depend on the order of the rows in the pool, even where rows"),
        (centred, r"must not change the pool; it changed pool\.features"),
        (grows, r"must not change the pool; it changed pool\.labelled\.features"),
        (reads_the_model, "this pool has no model"),
        (trains, "must leave the model in eval mode"),
        (of_two, "a pool of 1 images with 6 labelled; this one raised"),
    ],
)
def test_a_broken_rule_is_named(function: Callable[..., Any], rule: str) -> None:
    state = torch.get_rng_state()
    with pytest.raises(AssertionError, match=rule):
        check_criterion(function)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_simplest_criterion_passes() -> None:
    check_criterion(nothing)
