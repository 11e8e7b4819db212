"""CC and KL against scipy in float64, and cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sal_fast.train.agreement import EPSILON, correlation, divergence
from scipy import special, stats
from torch import Tensor


def blobs(count: int, height: int, width: int, seed: int) -> Tensor:
    """Smooth positive maps: a few Gaussians each, float32."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    maps = np.zeros((count, height, width))
    for one in maps:
        for _ in range(4):
            at_y, at_x = rng.uniform(0, height), rng.uniform(0, width)
            one += rng.uniform(0.2, 1) * np.exp(
                -((y - at_y) ** 2 + (x - at_x) ** 2) / (2 * (width / rng.uniform(4, 9)) ** 2)
            )
    return torch.from_numpy(maps).float()


def enlarged(cam: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear without aligned corners, as two matrices of weights."""

    def weights(size: int, new: int) -> np.ndarray:
        at = np.clip((np.arange(new) + 0.5) * size / new - 0.5, 0, size - 1)
        return np.clip(1 - np.abs(at[:, None] - np.arange(size)), 0, None)

    return weights(cam.shape[0], height) @ cam.astype(np.float64) @ weights(cam.shape[1], width).T


def shares(values: np.ndarray) -> np.ndarray:
    values = values - values.min()
    return values / values.sum()


def kl(cam: np.ndarray, human: np.ndarray) -> float:
    """The benchmark's formula; there the inner eps is a part of the model's map."""
    p, q = shares(cam), shares(human)
    return float((q * np.log(EPSILON + q / (p + EPSILON))).sum())


@pytest.mark.parametrize("kind", ["uint8", "float"])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-25, 0.0), (1e25, 0.0), (-3.0, 7.0)])
def test_against_scipy(device: torch.device, kind: str, scale: float, shift: float) -> None:
    cam = blobs(5, 7, 9, seed=1) * scale + shift
    human = blobs(5, 56, 72, seed=2)
    human = (human / human.amax((1, 2), keepdim=True) * 255).round().byte() if kind == "uint8" else human
    cc = correlation(cam.to(device), human.to(device))
    divergences = divergence(cam.to(device), human.to(device))
    assert cc.dtype == divergences.dtype == torch.float32
    assert cc.device.type == divergences.device.type == device.type
    for index in range(5):
        model, people = enlarged(cam[index].numpy(), 56, 72), human[index].double().numpy()
        assert cc[index].item() == pytest.approx(stats.pearsonr(model.ravel(), people.ravel())[0], abs=2e-6)
        assert divergences[index].item() == pytest.approx(kl(model, people), rel=2e-5, abs=2e-5)


def test_kl_is_kl_where_no_pixel_is_without_a_share() -> None:
    """Against scipy's own terms, which have no eps."""
    rng = np.random.default_rng(3)
    cam, human = (torch.from_numpy(rng.uniform(1, 2, (4, 12, 12))).float() for _ in range(2))
    lowest = human.flatten(1).argmin(1)  # of both: their shares are zero, and a term 0 log 0 is 0
    cam.flatten(1)[torch.arange(4), lowest] = 0.9
    want = [
        special.rel_entr(shares(people), shares(model)).sum()
        for model, people in zip(cam.double().numpy(), human.double().numpy(), strict=True)
    ]
    assert divergence(cam, human).tolist() == pytest.approx(want, abs=1e-4)


def test_known_cases() -> None:
    human = blobs(3, 24, 32, seed=4)
    assert correlation(human, human).tolist() == pytest.approx([1] * 3, abs=1e-6)
    assert correlation(5 - 2 * human, human).tolist() == pytest.approx([-1] * 3, abs=1e-6)
    assert correlation(human, human).max() <= 1
    same = divergence(3 * human + 1, human)
    assert same.tolist() == pytest.approx([0] * 3, abs=24 * 32 * EPSILON)
    assert (divergence(5 - 2 * human, human) > 0.1).all()
    left, right = torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)
    left[..., :2] = right[..., 2:] = 1
    # all of q is where p = 0: four times 1/4 log(eps + 1 / (4 eps))
    assert divergence(left, right).item() == pytest.approx(np.log(0.25 / EPSILON), rel=1e-6)
    assert correlation(left, right).item() == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("measure", [correlation, divergence])
@pytest.mark.parametrize("value", [0.0, 0.3, -1e5, float("nan")])
def test_flat_maps_have_no_agreement(measure, value: float) -> None:
    cam, human = blobs(3, 7, 7, seed=5), blobs(3, 33, 47, seed=6)
    whole = measure(cam, human)
    cam[0], human[1] = value, value
    result = measure(cam, human)
    assert result.isnan().tolist() == [True, True, False]
    assert result[2] == whole[2]
    assert result.nanmean() == whole[2]


@pytest.mark.parametrize("measure", [correlation, divergence])
def test_shapes_and_types(measure) -> None:
    maps = torch.rand(2, 4, 5)
    assert measure(maps[:0], torch.zeros(0, 8, 8, dtype=torch.uint8)).shape == (0,)
    assert measure(maps.half(), maps).dtype == torch.float32
    for cam, human in ((maps[0], maps), (maps, maps[None]), (maps, maps[:1]), (maps[:1], maps)):
        with pytest.raises(ValueError, match=r"expected cam \[B, h, w\] and human \[B, H, W\], got \["):
            measure(cam, human)
    with pytest.raises(TypeError, match=r"cam must be floating, got torch\.uint8"):
        measure(maps.byte(), maps)
