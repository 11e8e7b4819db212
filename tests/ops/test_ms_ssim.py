"""sal_fast.ops.ms_ssim, and SSIM of volumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import correlate1d
from torch import Tensor

from sal_fast import ops
from sal_fast.ops.ssim import BORDERS, MS_SSIM_WEIGHTS, reference


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def images(side: int = 176, other: int = 208) -> tuple[Tensor, Tensor]:
    """Two images that are alike at every scale, [2, 3, side, other]."""
    x = F.interpolate(draw(2, 3, 12, 14), (side, other), mode="bicubic").clamp(0, 1)
    return x, (0.8 * x + 0.2 * draw(2, 3, side, other, seed=1)).clamp(0, 1)


def by_scales(x: Tensor, y: Tensor, weights: tuple[float, ...], window: int = 11) -> Tensor:
    """The definition, [B], in the dtype of the images."""
    product = torch.ones(x.shape[:2], dtype=x.dtype)
    for scale, weight in enumerate(weights):
        last = scale == len(weights) - 1
        factor = reference.ssim(x, y, window, 1.5, "valid", 1.0, structure=not last).mean((2, 3))
        product = product * factor.clamp(min=0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return product.mean(1)


@pytest.mark.parametrize("weights", [MS_SSIM_WEIGHTS, (0.3, 0.7), (1.0,)])
def test_values_and_gradients(weights: tuple[float, ...], device: torch.device) -> None:
    x, y = images()
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    exact = by_scales(a, b, weights)
    expected = torch.autograd.grad(exact.sum(), (a, b))
    p, q = (image.float().to(device).requires_grad_() for image in (x, y))
    got = ops.ms_ssim(p, q, weights=weights, reduction="none")
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.cpu().double(), exact.detach(), rtol=0, atol=1e-6)
    for ours, exactly in zip(torch.autograd.grad(got.sum(), (p, q)), expected, strict=True):
        scale = float(exactly.abs().max())
        torch.testing.assert_close(ours.cpu().double(), exactly, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(ops.ms_ssim(p, q, weights=weights), got.mean())


def test_exact_means_and_whole_numbers() -> None:
    x, y = images()
    u, v = ((image * 255).round().byte() for image in (x, y))
    exact = by_scales(u.double() / 255, v.double() / 255, MS_SSIM_WEIGHTS)
    got = ops.ms_ssim(u, v, reduction="none", out_dtype=torch.float64)
    torch.testing.assert_close(got, exact, rtol=0, atol=1e-12)
    torch.testing.assert_close(ops.ms_ssim(u, v, reduction="none").double(), exact, rtol=0, atol=2e-7)
    wide = ops.ms_ssim(u.to(torch.uint16), v.to(torch.uint16), data_range=255, out_dtype=torch.float64)
    torch.testing.assert_close(wide, exact.mean(), rtol=0, atol=1e-12)


def test_it_is_that_of_pytorch_msssim() -> None:
    pytorch_msssim = pytest.importorskip("pytorch_msssim")
    x, y = images()
    win = reference.gaussian(11, 1.5, x).expand(3, 1, 1, -1)
    expected = pytorch_msssim.ms_ssim(x, y, data_range=1.0, size_average=False, win=win)
    torch.testing.assert_close(ops.ms_ssim(x, y, reduction="none"), expected, rtol=0, atol=1e-9)


def test_an_odd_row_is_left_out() -> None:
    x, y = images(45, 51)
    weights = (0.4, 0.6)
    exact = by_scales(x, y, weights)
    torch.testing.assert_close(ops.ms_ssim(x, y, weights=weights, reduction="none"), exact)
    u, v = ((image * 255).round().byte() for image in (x, y))
    exact = by_scales(u.double() / 255, v.double() / 255, weights)
    got = ops.ms_ssim(u, v, weights=weights, reduction="none", out_dtype=torch.float64)
    torch.testing.assert_close(got, exact, rtol=0, atol=1e-12)


def test_images_that_are_opposite_have_no_gradient(device: torch.device) -> None:
    x, _ = images(44, 44)
    x = x.float().to(device).requires_grad_()
    value = ops.ms_ssim(x, 1 - x.detach(), weights=(0.5, 0.5))
    assert value.item() == 0
    (gradient,) = torch.autograd.grad(value, x)
    assert not gradient.any()


def test_what_ms_ssim_refuses() -> None:
    x = torch.rand(1, 1, 175, 200)
    with pytest.raises(ValueError, match="at least 176 x 176 pixels, got 175 x 200: give fewer weights"):
        ops.ms_ssim(x, x)
    with pytest.raises(ValueError, match="a value for each scale, got none"):
        ops.ms_ssim(x, x, weights=())
    with pytest.raises(ValueError, match=r"x must have shape \[\*, \*, \*, \*\], got \[1, 1, 9, 9, 9\]"):
        ops.ms_ssim(torch.rand(1, 1, 9, 9, 9), torch.rand(1, 1, 9, 9, 9))


# Volumes ---------------------------------------------------------------------------------------------------


def volumes() -> tuple[Tensor, Tensor]:
    return draw(2, 2, 13, 12, 17), draw(2, 2, 13, 12, 17, seed=1)


def by_scipy(x: Tensor, y: Tensor, window: int, border: str) -> np.ndarray:
    offsets = np.arange(window) - window // 2
    taps = np.exp(-(offsets**2.0) / (2 * 1.5**2))
    taps /= taps.sum()
    mode, pad = {"valid": "constant", "zero": "constant", "reflect": "mirror"}[border], window // 2
    inside = (..., *[slice(pad, side - pad) if border == "valid" else slice(None) for side in x.shape[2:]])

    def blur(volume: np.ndarray) -> np.ndarray:
        for axis in (2, 3, 4):
            volume = correlate1d(volume, taps, axis, mode=mode)
        return volume[inside]

    a, b = x.numpy(), y.numpy()
    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    return (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("window", [3, 7, 11])
def test_volumes(window: int, border: str, device: torch.device) -> None:
    x, y = volumes()
    expected = by_scipy(x, y, window, border)
    a, b = x.to(device), y.to(device)
    np.testing.assert_allclose(ops.ssim_map(a, b, window=window, border=border).cpu(), expected, atol=1e-12)
    of_each = ops.ssim(a, b, window=window, border=border, reduction="none")
    np.testing.assert_allclose(of_each.cpu(), expected.mean((1, 2, 3, 4)), atol=1e-12)
    in_float32 = ops.ssim(a.float(), b.float(), window=window, border=border)
    assert in_float32.dtype == torch.float32
    assert float(in_float32) == pytest.approx(expected.mean(), abs=1e-7)


def test_volumes_are_those_of_pytorch_msssim() -> None:
    pytorch_msssim = pytest.importorskip("pytorch_msssim")
    x, y = volumes()
    win = reference.gaussian(11, 1.5, x).expand(2, 1, 1, 1, -1)
    expected = pytorch_msssim.ssim(x, y, data_range=1.0, size_average=False, win=win)
    torch.testing.assert_close(ops.ssim(x, y, reduction="none"), expected, rtol=0, atol=1e-9)


def test_gradients_of_volumes() -> None:
    x, y = draw(1, 1, 4, 5, 6).requires_grad_(), draw(1, 1, 4, 5, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: ops.ssim(a, b, window=3, border="reflect"), (x, y))
    assert torch.autograd.gradgradcheck(lambda a, b: ops.ssim(a, b, window=3), (x, y))


def test_masks_of_volumes_and_whole_numbers() -> None:
    x, y = volumes()
    mask = draw(2, 13, 12, 17, seed=2)
    maps = by_scipy(x, y, 5, "valid")
    weights = np.broadcast_to(mask[:, None, 2:-2, 2:-2, 2:-2].numpy(), maps.shape)
    expected = (maps * weights).sum((1, 2, 3, 4)) / weights.sum((1, 2, 3, 4))
    got = ops.ssim(x, y, window=5, mask=mask, reduction="none")
    np.testing.assert_allclose(got, expected, atol=1e-7)
    u, v = ((volume * 255).byte() for volume in (x, y))
    floats = ops.ssim(u.double(), v.double(), data_range=255)
    assert float(ops.ssim(u, v, out_dtype=torch.float64)) == pytest.approx(float(floats), abs=1e-12)


def test_autocast_changes_no_volume(device: torch.device) -> None:
    x, y = (volume.float().to(device) for volume in volumes())
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = ops.ssim(x, y)
    assert torch.equal(inside, ops.ssim(x, y))
