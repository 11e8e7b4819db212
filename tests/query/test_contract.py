"""One contract that every criterion in `CRITERIA` passes."""

from __future__ import annotations

import pytest
import torch

from sal_fast import query
from sal_fast.query import CRITERIA, Pool


def pool(size: int = 50, classes: int = 4, labelled: int = 6, seed: int = 0) -> Pool:
    generator = torch.Generator().manual_seed(seed)
    return Pool(
        size,
        torch.randn(size, classes, generator=generator),
        torch.randn(size, 8, generator=generator),
        torch.randn(labelled, 8, generator=generator),
    )


@pytest.fixture(params=list(CRITERIA))
def criterion(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("k", [0, 1, 7, 50, 80])
def test_picks_from_the_pool_without_repeats(criterion: str, k: int) -> None:
    positions, scores = query.select(criterion, pool(), k, seed=3)
    assert positions.dtype == torch.int64
    assert len(positions) == len(scores) == min(k, 50)
    assert len(set(positions.tolist())) == len(positions)
    assert all(0 <= p < 50 for p in positions.tolist())
    assert scores.isfinite().all()
    assert (scores.diff() <= 0).all()


def test_the_same_seed_gives_the_same_query(criterion: str) -> None:
    first = query.select(criterion, pool(), 20, seed=3)
    again = query.select(criterion, pool(), 20, seed=3)
    assert torch.equal(first.positions, again.positions)
    assert torch.equal(first.scores, again.scores)


def test_the_callers_random_state_does_not_matter(criterion: str) -> None:
    torch.manual_seed(1)
    first = query.select(criterion, pool(), 20, seed=3).positions
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(query.select(criterion, pool(), 20, seed=3).positions, first)
    assert torch.equal(torch.get_rng_state(), state)


def test_inputs_are_left_alone(criterion: str) -> None:
    before, given = pool(), pool()
    query.select(criterion, given, 20, seed=3)
    for name in ("logits", "features", "labelled"):
        assert torch.equal(getattr(before, name), getattr(given, name))


def test_empty_pool(criterion: str) -> None:
    assert query.select(criterion, pool(size=0), 5, seed=0).positions.tolist() == []


def test_one_image(criterion: str) -> None:
    assert query.select(criterion, pool(size=1), 5, seed=0).positions.tolist() == [0]


def test_one_class(criterion: str) -> None:
    positions = query.select(criterion, pool(classes=1), 10, seed=0).positions.tolist()
    assert len(set(positions)) == 10


def test_nothing_labelled(criterion: str) -> None:
    assert len(set(query.select(criterion, pool(labelled=0), 10, seed=0).positions.tolist())) == 10


def test_ties_go_to_the_lowest_position(criterion: str) -> None:
    same = Pool(9, torch.zeros(9, 3), torch.ones(9, 4), torch.ones(2, 4))
    positions = query.select(criterion, same, 5, seed=0).positions.tolist()
    assert len(set(positions)) == 5
    if criterion != "random":
        assert positions == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number_is_refused(criterion: str, value: float) -> None:
    for name in CRITERIA[criterion].NEEDS:
        given = pool()
        getattr(given, name)[3, 0] = value
        with pytest.raises(ValueError, match=f"{criterion}: {name} contain NaN"):
            query.select(criterion, given, 5, seed=0)


def test_what_is_needed_must_be_there(criterion: str) -> None:
    for name in CRITERIA[criterion].NEEDS:
        fields = dict(pool().__dict__) | {name: None}
        with pytest.raises(ValueError, match=f"the pool has no {name}"):
            query.select(criterion, Pool(**fields), 5, seed=0)


def test_rows_must_match(criterion: str) -> None:
    if CRITERIA[criterion].NEEDS:
        with pytest.raises(ValueError, match="expected 49 rows"):
            query.select(criterion, Pool(49, pool().logits, pool().features, pool().labelled), 5, seed=0)


def test_bad_calls() -> None:
    with pytest.raises(ValueError, match="random, margin, least-confidence, entropy, badge, core-set"):
        query.select("margins", pool(), 5, seed=0)
    with pytest.raises(ValueError, match="at least 0"):
        query.select("margin", pool(), -1, seed=0)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [("margin", [1, 2, 0]), ("least-confidence", [2, 1, 0]), ("entropy", [2, 1, 0])],
)
def test_what_each_criterion_asks_for_first(criterion: str, expected: list[int]) -> None:
    """Sure; torn between two; unsure of all, with one a little ahead."""
    probs = torch.tensor([[0.98, 0.01, 0.01], [0.495, 0.494, 0.011], [0.36, 0.32, 0.32]])
    given = Pool(3, probs.log())
    assert query.select(criterion, given, 3, seed=0).positions.tolist() == expected


def test_random_depends_on_the_seed() -> None:
    picks = {tuple(query.select("random", Pool(100), 10, seed=s).positions.tolist()) for s in range(20)}
    assert len(picks) == 20
