"""Top-N and Dice against a sort in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sal_fast import ops


def topn_by_sorting(values: np.ndarray, n: int) -> np.ndarray:
    order = sorted(range(values.size), key=lambda i: (-values.flat[i], i))
    mask = np.zeros(values.size, dtype=bool)
    mask[order[:n]] = True
    return mask.reshape(values.shape)


CASES = {
    "random": torch.randn(3, 9, 7, generator=torch.Generator().manual_seed(0)),
    "flat": torch.full((3, 9, 7), 2.5),
    "relu": torch.randn(3, 9, 7, generator=torch.Generator().manual_seed(1)).relu(),
    "hot": F.one_hot(torch.tensor([0, 31, 62]), 63).float().view(3, 9, 7),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n", [0, 1, 30, 63, (0, 17, 63)])
def test_topn_mask(name: str, n: int | tuple[int, ...]) -> None:
    maps = CASES[name]
    counts = torch.tensor(n).expand(3)
    expected = [topn_by_sorting(m, int(k)) for m, k in zip(maps.numpy(), counts, strict=True)]
    np.testing.assert_array_equal(ops.topn_mask(maps, n if isinstance(n, int) else counts), expected)


@pytest.mark.parametrize(
    ("cam", "size"), [((7, 7), (28, 28)), ((7, 7), (29, 31)), ((4, 4), (64, 64)), ((7, 12), (21, 48))]
)
def test_topn_dice(cam: tuple[int, int], size: tuple[int, int]) -> None:
    maps = torch.randn(4, *cam, generator=torch.Generator().manual_seed(2))
    mask = torch.rand(4, *size, generator=torch.Generator().manual_seed(3)) < torch.tensor(
        [0, 0.1, 0.6, 1.1]
    ).view(4, 1, 1)
    got = ops.topn_dice(maps, mask)
    large = F.interpolate(maps[:, None], size, mode="bilinear")[:, 0].numpy()
    for i in range(4):
        n = int(mask[i].sum())
        hits = int((topn_by_sorting(large[i], n) & mask[i].numpy()).sum())
        assert (int(got.hits[i]), int(got.n[i])) == (hits, n)
        assert float(got.dice[i]) == pytest.approx(hits / n) if n else math.isnan(got.dice[i])
    assert float(got.dice[3]) == 1.0


@pytest.mark.parametrize(("empty", "value"), [("zero", 0.0), ("one", 1.0)])
def test_empty_policy(empty: ops.TopnDice, value: float) -> None:
    got = ops.topn_dice(torch.rand(1, 4, 4), torch.zeros(1, 8, 8, dtype=torch.bool), empty=empty)
    assert got.dice.tolist() == [value]


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.16, got 17"):
        ops.topn_mask(torch.rand(2, 4, 4), 17)
    with pytest.raises(ValueError, match="NaN"):
        ops.topn_mask(torch.full((1, 2, 2), math.nan), 1)
    with pytest.raises(ValueError, match="NaN"):
        ops.topn_dice(torch.full((1, 2, 2), math.nan), torch.ones(1, 4, 4, dtype=torch.bool))
    with pytest.raises(TypeError, match="bool"):
        ops.topn_dice(torch.rand(1, 4, 4), torch.rand(1, 8, 8))
