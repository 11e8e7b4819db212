"""Figures of maps against definitions in float64, and cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from sal_fast import metrics, ops
from sal_fast.metrics import correlation, divergence, map_figures, maps
from sal_fast.metrics.maps import EPSILON


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


@pytest.mark.parametrize("measure", [correlation, divergence, metrics.similarity])
@pytest.mark.parametrize("value", [0.0, 0.3, -1e5, float("nan")])
def test_flat_maps_have_no_agreement(measure, value: float) -> None:
    cam, human = blobs(3, 7, 7, seed=5), blobs(3, 33, 47, seed=6)
    whole = measure(cam, human)
    cam[0], human[1] = value, value
    result = measure(cam, human)
    assert result.isnan().tolist() == [True, True, False]
    assert result[2] == whole[2]
    assert result.nanmean() == whole[2]


@pytest.mark.parametrize("measure", [correlation, divergence, metrics.similarity])
def test_shapes_and_types(measure) -> None:
    maps = torch.rand(2, 4, 5)
    assert measure(maps[:0], torch.zeros(0, 8, 8, dtype=torch.uint8)).shape == (0,)
    assert measure(maps.half(), maps).dtype == torch.float32
    for cam, human in ((maps[0], maps), (maps, maps[None]), (maps, maps[:1]), (maps[:1], maps)):
        with pytest.raises(
            ValueError, match=r"expected cam \[B, h, w\] and a mask or map \[B, H, W\], got \["
        ):
            measure(cam, human)
    with pytest.raises(TypeError, match=r"cam must be floating, got torch\.uint8"):
        measure(maps.byte(), maps)


# --- against definitions in float64 ----------------------------------------------------------------------


def want_dice(large: np.ndarray, mask: np.ndarray) -> float:
    top = np.argsort(-large.ravel(), kind="stable")[: mask.sum()]
    return float(mask.ravel()[top].sum() / mask.sum()) if mask.any() else np.nan


def want_iou(large: np.ndarray, mask: np.ndarray) -> float:
    top = np.zeros(mask.size, dtype=bool)
    top[np.argsort(-large.ravel(), kind="stable")[: mask.sum()]] = True
    return float((top & mask.ravel()).sum() / (top | mask.ravel()).sum()) if mask.any() else np.nan


def want_pointing(large: np.ndarray, mask: np.ndarray) -> float:
    return float(mask[large == large.max()].mean()) if mask.any() else np.nan


def want_energy(large: np.ndarray, mask: np.ndarray) -> float:
    height = large - large.min() if large.min() < large.max() else np.ones_like(large)
    return float(height[mask].sum() / height.sum()) if mask.any() else np.nan


def want_gain(large: np.ndarray, mask: np.ndarray) -> float:
    share = mask.mean()
    return (want_energy(large, mask) - share) / (1 - share) if share < 1 else np.nan


def want_nss(large: np.ndarray, mask: np.ndarray) -> float:
    return (
        float(((large - large.mean()) / large.std())[mask].mean()) if mask.any() and large.std() else np.nan
    )


def want_auc(large: np.ndarray, mask: np.ndarray) -> float:
    """The share of all pairs."""
    high, low = large[mask][:, None], large[~mask][None]
    return float((high > low).mean() + (high == low).mean() / 2) if high.size and low.size else np.nan


WANTED = {
    "iou": want_iou,
    "pointing_game": want_pointing,
    "energy": want_energy,
    "energy_gain": want_gain,
    "nss": want_nss,
    "auc_judd": want_auc,
}
CASES = ["random", "ties", "flat", "peak at the edge"]


def case_of(kind: str) -> Tensor:
    """Maps of 5 x 6 whose enlarged pixels are the same in float32 and float64."""
    rng = np.random.default_rng(7)
    match kind:
        case "random":
            return torch.from_numpy(rng.integers(0, 1 << 12, (6, 5, 6))).float()
        case "ties":
            return torch.from_numpy(rng.integers(0, 3, (6, 5, 6))).float()
        case "flat":
            return torch.full((6, 5, 6), 3.0)
        case _:
            cam = torch.zeros(6, 5, 6)
            cam[:, -1, -1] = 1
            return cam


def masks_of() -> Tensor:
    """Random, empty, full, one pixel at the corner, one pixel inside, all but one: bool [6, 20, 24]."""
    masks = torch.from_numpy(np.random.default_rng(8).random((6, 20, 24)) < 0.3)
    masks[1], masks[2], masks[3], masks[4], masks[5] = False, True, False, False, True
    masks[3, -1, -1] = masks[4, 9, 7] = True
    masks[5, 0, 0] = False
    return masks


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("name", WANTED)
def test_beside_masks(device: torch.device, name: str, kind: str) -> None:
    cam, masks = case_of(kind), masks_of()
    found = getattr(metrics, name)(cam.to(device), masks.to(device)).cpu()
    packed = getattr(metrics, name)(cam.to(device), ops.BitMask.pack(masks).to(device)).cpu()
    large = np.stack([enlarged(one.numpy(), 20, 24) for one in cam])
    want = [WANTED[name](one, mask) for one, mask in zip(large, masks.numpy(), strict=True)]
    assert found.tolist() == pytest.approx(want, abs=1e-5, nan_ok=True)
    assert found.equal(packed) or found.isnan().equal(packed.isnan())


@pytest.mark.parametrize("kind", CASES)
def test_all_figures_are_those_of_the_functions(kind: str) -> None:
    """In several chunks, too; a mask is no graded map."""
    cam, masks = case_of(kind).repeat(3, 1, 1), masks_of().repeat(3, 1, 1)
    assert len(cam) > 2 * maps.CHUNK
    found = map_figures(cam, masks)
    large = np.stack([enlarged(one.numpy(), 20, 24) for one in cam])
    dice = [want_dice(one, mask) for one, mask in zip(large, masks.numpy(), strict=True)]
    assert found.dice.tolist() == pytest.approx(dice, abs=1e-6, nan_ok=True)
    share = masks.double().mean((1, 2))
    assert found.floor.tolist() == pytest.approx(share.where(share > 0, torch.nan).tolist(), nan_ok=True)
    for name, field in (
        ("iou", "iou"),
        ("pointing_game", "pointing"),
        ("energy", "energy"),
        ("energy_gain",) * 2,
    ):
        torch.testing.assert_close(
            getattr(found, field), getattr(metrics, name)(cam, masks), rtol=0, atol=1e-6, equal_nan=True
        )
    assert torch.stack(found[6:]).isnan().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_beside_graded_maps(dtype: torch.dtype) -> None:
    cam, human = blobs(20, 7, 9, seed=1), blobs(20, 28, 36, seed=2)
    human = human / human.amax((1, 2), keepdim=True)
    human = (human * 255).round().byte() if dtype == torch.uint8 else human
    graded = human.double() / 255 if dtype == torch.uint8 else human.double()
    found = map_figures(cam, human)
    for index in range(20):
        large, people = enlarged(cam[index].numpy(), 28, 36), graded[index].numpy()
        looked_at = np.zeros(people.size, dtype=bool)
        looked_at[np.argsort(-people.ravel(), kind="stable")[: round(people.sum())]] = True
        looked_at = looked_at.reshape(people.shape)
        p, q = shares(large), shares(people)
        want = {
            "dice": want_dice(large, looked_at),
            "iou": want_iou(large, looked_at),
            "pointing": want_pointing(large, looked_at),
            "energy": want_energy(large, looked_at),
            "cc": stats.pearsonr(large.ravel(), people.ravel())[0],
            "kl": kl(large, people),
            "nss": want_nss(large, looked_at),
            "sim": np.minimum(p, q).sum(),
            "auc_judd": want_auc(large, looked_at),
        }
        for name, value in want.items():
            assert getattr(found, name)[index].item() == pytest.approx(value, abs=5e-5), name


def test_the_energy_of_a_flat_map_gains_nothing() -> None:
    flat, masks = torch.full((6, 5, 6), 0.3), masks_of()
    share = masks.float().mean((1, 2))
    known = share > 0
    for measure in (metrics.pointing_game, metrics.energy):
        torch.testing.assert_close(measure(flat, masks)[known], share[known])
    assert metrics.energy_gain(flat, masks)[known & (share < 1)].tolist() == pytest.approx([0] * 4, abs=1e-6)


@pytest.mark.parametrize(
    "name", [*(name for name in WANTED if name != "iou"), "correlation", "divergence", "similarity"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_figure_of_a_map_that_is_not_finite(name: str, value: float) -> None:
    cam, masks = case_of("random"), masks_of()
    cam[0, 2, 3] = value
    other = masks if name in WANTED else blobs(6, 20, 24, seed=3)
    found = getattr(metrics, name)(cam, other)
    assert bool(found[0].isnan())
    assert bool(found[4].isfinite())


def test_neighbours_of_one_value_keep_it() -> None:
    """Cells of one value give pixels of one value, at every size and edge."""
    cam = torch.rand(1, 1, 1, generator=torch.Generator().manual_seed(0)).expand(1, 7, 7).contiguous()
    assert maps.enlarged(cam, (224, 193)).unique().numel() == 1
    for size in ((7, 7), (33, 20), (3, 4)):
        want = enlarged(blobs(1, 7, 7, seed=9)[0].numpy(), *size)
        np.testing.assert_allclose(maps.enlarged(blobs(1, 7, 7, seed=9), size)[0].numpy(), want, atol=1e-6)


def test_a_mask_must_be_bool() -> None:
    with pytest.raises(TypeError, match=r"a mask must be bool or a BitMask, got torch\.float32"):
        metrics.energy(torch.rand(2, 3, 3), torch.rand(2, 6, 6))
