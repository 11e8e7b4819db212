"""k-center and BADGE against materialised, one-line-at-a-time versions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from sal_fast import ops


def kcenter_by_hand(x: np.ndarray, k: int, centers: np.ndarray | None) -> list[int]:
    picks: list[int] = []
    while len(picks) < min(k, len(x)):
        known = list(centers) if centers is not None else []
        known += [x[i] for i in picks]
        best, best_distance = -1, -1.0
        for i in range(len(x)):
            if i in picks:
                continue
            distance = min((np.linalg.norm(x[i] - c) for c in known), default=np.linalg.norm(x[i]))
            if distance > best_distance:
                best, best_distance = i, distance
        picks.append(best)
    return picks


@pytest.mark.parametrize("given", [0, 1, 5])
def test_kcenter(given: int) -> None:
    rng = np.random.default_rng(given)
    x, centers = rng.normal(size=(40, 6)), rng.normal(size=(given, 6)) if given else None
    got = ops.kcenter(torch.from_numpy(x), 15, centers=None if centers is None else torch.from_numpy(centers))
    assert got.tolist() == kcenter_by_hand(x, 15, centers)


def test_kcenter_ends_cleanly_when_all_is_covered() -> None:
    x = torch.ones(6, 3)
    assert ops.kcenter(x, 10).tolist() == [0, 1, 2, 3, 4, 5]
    assert ops.kcenter(x, 3, centers=torch.ones(2, 3)).tolist() == [0, 1, 2]
    assert ops.kcenter(torch.empty(0, 3), 4).tolist() == []
    assert ops.kcenter(torch.tensor([[1.0], [2.0]]), 2, centers=torch.empty(0, 1)).tolist() == [1, 0]
    wide = torch.tensor([[6e4], [-6e4], [0.0]], dtype=torch.float16)  # their difference overflows in fp16
    assert ops.kcenter(wide, 3, centers=wide[:1]).tolist() == [1, 2, 0]
    far = torch.tensor([[1e6, 1e6], [1e6, 1e6], [1e6 + 1, 1e6]])  # nothing cancels
    assert ops.kcenter(far, 3).tolist() == [2, 0, 1]


def badge_by_hand(p: np.ndarray, e: np.ndarray, k: int, seed: int) -> list[int]:
    residual = p - np.eye(p.shape[1])[p.argmax(1)]
    g = (residual[:, :, None] * e[:, None, :]).reshape(len(p), -1)  # the vectors that ours never forms
    draws = torch.rand(k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()
    picks = [int((g**2).sum(1).argmax())]
    while len(picks) < k:
        d2 = np.min([((g - g[i]) ** 2).sum(1) for i in picks], axis=0)
        d2[picks] = 0
        picks.append(int(np.searchsorted(np.cumsum(d2), draws[len(picks)] * d2.sum(), side="right")))
    return picks


@pytest.mark.parametrize("seed", range(5))
def test_badge(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, e = rng.dirichlet(np.ones(5), 60), rng.normal(size=(60, 7))
    got = ops.badge(torch.from_numpy(p), torch.from_numpy(e), 25, seed=seed)
    assert got.tolist() == badge_by_hand(p, e, 25, seed)


def test_badge_draws_by_squared_distance() -> None:
    rng = np.random.default_rng(9)
    p, e = rng.dirichlet(np.ones(3), 20), rng.normal(size=(20, 4))
    residual = p - np.eye(3)[p.argmax(1)]
    g = (residual[:, :, None] * e[:, None, :]).reshape(20, -1)
    first = int((g**2).sum(1).argmax())
    law = ((g - g[first]) ** 2).sum(1)
    counts = np.zeros(20)
    for seed in range(4000):
        picks = ops.badge(torch.from_numpy(p), torch.from_numpy(e), 2, seed=seed).tolist()
        assert picks[0] == first
        counts[picks[1]] += 1
    assert counts[first] == 0
    others = np.arange(20) != first
    assert chisquare(counts[others], law[others] / law.sum() * 4000).pvalue > 1e-4


def test_badge_ends_cleanly_when_all_distances_are_zero() -> None:
    same = torch.ones(5, 3) / 3
    assert ops.badge(same, torch.ones(5, 2), 9, seed=0).tolist() == [0, 1, 2, 3, 4]
    sure = torch.eye(3)  # every gradient is zero
    assert ops.badge(sure, torch.rand(3, 2), 3, seed=0).tolist() == [0, 1, 2]
    assert ops.badge(torch.empty(0, 3), torch.empty(0, 2), 3, seed=0).tolist() == []
    for seed in range(20):  # equal rows of any values: rounding must not tell them apart
        rng = np.random.default_rng(seed)
        p, e = (torch.from_numpy(x).expand(9, -1) for x in (rng.dirichlet(np.ones(50)), rng.normal(size=700)))
        assert ops.badge(p, e, 9, seed=seed).tolist() == list(range(9))


def test_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        ops.kcenter(torch.full((3, 2), float("nan")), 1)
    with pytest.raises(ValueError, match="NaN"):
        ops.badge(torch.full((3, 2), float("nan")), torch.rand(3, 2), 1, seed=0)
    with pytest.raises(ValueError, match="centers contain NaN"):
        ops.kcenter(torch.rand(3, 2), 1, centers=torch.full((1, 2), float("nan")))
    with pytest.raises(ValueError, match="at least 0"):
        ops.kcenter(torch.rand(3, 2), -1)
