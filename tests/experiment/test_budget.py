"""Labelled counts and the change point, against the paper's numbers."""

from __future__ import annotations

import pytest

from sal_fast.errors import InputError
from sal_fast.experiment.budget import fractions, plan


def test_cub_at_five_percent() -> None:
    """P = 4,794: C = 5 of 20 five-percent steps are human, 20 % of the pool."""
    whole = plan(4794, 0.05, 0.05, 1.0, 0.2)
    assert whole.rounds == 20
    assert whole.labelled[:4] == (240, 479, 719, 959)
    assert whole.labelled[-1] == 4794
    assert whole.human == (True,) * 4 + (False,) * 16
    assert [whole.query_size(r) for r in range(3)] == [240, 239, 240]


def test_flowers_starts_at_ten_percent() -> None:
    whole = plan(1020, 0.1, 0.05, 1.0, 0.2)
    assert whole.labelled == tuple(round(1020 * (0.1 + 0.05 * r)) for r in range(19))
    assert sum(whole.human) == 3


def test_the_last_query_takes_the_remainder() -> None:
    whole = plan(100, 0.1, 0.4, 1.0, 1.0)
    assert whole.labelled == (10, 50, 90, 100)
    assert plan(100, 0.1, 0.4, 0.6, 1.0).labelled == (10, 50, 60)
    assert plan(100, 1.0, 0.4, 1.0, 0.2).labelled == (100,)


@pytest.mark.parametrize(
    ("pool", "labelled"),
    [
        (36, (10, 23, 36)),
        (31, (10, 21, 31)),
        (20, (10, 20)),
        (19, (19,)),
        (7, (7,)),
        (199, (10, 21, 31, 42, 52, 63, 73, 84, 94, 105, 115, 126, 136, 147, 157, 168, 178, 189, 199)),
    ],
)
def test_auto_asks_for_at_least_ten_images(pool: int, labelled: tuple[int, ...]) -> None:
    start, query = fractions(pool, "auto", "auto", 1.0)
    assert plan(pool, start, query, 1.0, 0.2).labelled == labelled


@pytest.mark.parametrize("stop", [1.0, 0.5, 0.33])
def test_what_auto_promises_of_any_pool(stop: float) -> None:
    for pool in (*range(4, 230), 1000, 4794):
        start, query = fractions(pool, "auto", "auto", stop)
        whole = plan(pool, start, query, stop, 0.0)
        sizes = [whole.query_size(index) for index in range(whole.rounds)]
        assert sum(sizes) == plan(pool, stop, stop, stop, 0.0).labelled[0]
        assert whole.rounds == 1 or min(sizes[:-1]) >= 10
        assert whole.rounds == 1 or pool >= 200 or sizes[-1] >= 10
        if pool >= 200:
            assert (start, query) == (0.05, 0.05)


def test_auto_of_one_fraction_leaves_the_other() -> None:
    assert fractions(36, 0.5, "auto", 1.0) == (0.5, 0.5)
    assert fractions(36, "auto", 0.05, 1.0) == (10 / 36, 0.05)
    assert fractions(36, 1.0, "auto", 1.0) == (1.0, 1.0)


def test_the_start_is_human_below_its_size_too() -> None:
    assert plan(100, 0.1, 0.1, 0.4, 0.05).human == (True, False, False, False)
    assert plan(100, 0.1, 0.1, 0.4, 0.0).human[0]


def test_sums_of_decimals_reach_the_budget() -> None:
    """0.1 + 0.1 + 0.1 > 0.3 in binary."""
    assert plan(1000, 0.1, 0.1, 0.5, 0.3).human == (True, True, True, False, False)
    assert plan(1000, 0.1, 0.1, 0.3, 0.3).rounds == 3


@pytest.mark.parametrize(
    ("values", "labelled"),
    [
        ((18, 0.25, 0.25, 0.76, 0.25), (5, 9, 14)),
        ((240, 0.1, 0.1, 0.501, 0.2), (24, 48, 72, 96, 120)),
        ((10, 0.1, 0.05, 0.3, 0.2), (1, 2, 3)),
        ((18, 0.75, 0.25, 0.76, 0.2), (14,)),
    ],
)
def test_no_query_is_empty(values: tuple, labelled: tuple[int, ...]) -> None:
    got = plan(*values)
    assert got.labelled == labelled
    assert len(got.human) == len(labelled)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((10, 0.04, 0.1, 1, 0.2), "--start-fraction 0.04 of 10 training images is less than one image"),
        ((10, 0.1, 0.04, 1, 0.2), "--query-fraction 0.04 of 10"),
        ((10, 0.1, 0.1, 1, 0.01), "--human-budget 0.01 of 10"),
        ((10, 0.5, 0.1, 0.2, 0.2), "--stop-fraction 0.2 is below"),
        ((10, 0, 0.1, 1, 0.2), "--start-fraction 0: expected a share"),
        ((10, 0.1, float("nan"), 1, 0.2), "--query-fraction nan"),
        ((10, 0.1, 0.1, 1, 1.5), "--human-budget 1.5"),
    ],
)
def test_refused(values: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(*values)
