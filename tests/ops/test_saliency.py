"""SSIM and the CYBORG loss: the paper's check values, and independent oracles in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import correlate
from torch import Tensor

from sal_fast import ops

INDEX = torch.arange(7, dtype=torch.float64)
RAMP = (7 * INDEX[:, None] + INDEX) / 48
BOX = torch.zeros(7, 7, dtype=torch.float64)
BOX[2:5, 2:5] = 1
ZEROS = torch.zeros(7, 7, dtype=torch.float64)


@pytest.mark.parametrize(
    ("x", "y", "similarity", "l1"),
    [
        (RAMP, RAMP, 1.0, 0.0),
        (RAMP, BOX, 0.00306196, 0.5),
        (RAMP, 1 - RAMP, -0.97930398, 0.51020408),
        (BOX, 1 - BOX, -0.99626959, 1.0),
        (ZEROS, BOX, 0.00000146, 0.18367347),
    ],
    ids=["ramp-ramp", "ramp-box", "ramp-inverse", "box-inverse", "zeros-box"],
)
def test_check_values(x: Tensor, y: Tensor, similarity: float, l1: float) -> None:
    """The table of docs/method.md."""
    assert float(ops.ssim(x[None, None], y[None, None], window=7)) == pytest.approx(similarity, abs=5e-9)
    assert float(ops.saliency_loss(x[None], y[None])) == pytest.approx(1 - similarity + l1, abs=1e-8)


def gaussian(window: int, sigma: float = 1.5) -> np.ndarray:
    taps = np.array([np.exp(-((i - window // 2) ** 2) / (2 * sigma**2)) for i in range(window)])
    return np.outer(taps, taps) / taps.sum() ** 2


@pytest.mark.parametrize("border", ["valid", "zero", "reflect"])
@pytest.mark.parametrize("window", [3, 5, 7, 9, 11])
def test_ssim_by_direct_sums(window: int, border: str) -> None:
    """Different images, every window, against scipy and a 2-D Gaussian."""
    rng = np.random.default_rng(window)
    x, y = rng.random((2, 2, 3, 13, 17))
    mode = {"valid": "constant", "zero": "constant", "reflect": "mirror"}[border]
    expected = []
    for a, b in zip(x.reshape(-1, 13, 17), y.reshape(-1, 13, 17), strict=True):

        def blur(image: np.ndarray) -> np.ndarray:
            out = correlate(image, gaussian(window), mode=mode)
            pad = window // 2
            return out[pad : 13 - pad, pad : 17 - pad] if border == "valid" else out

        ma, mb = blur(a), blur(b)
        va, vb, cov = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
        expected.append(
            ((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))).mean()
        )
    got = ops.ssim(torch.from_numpy(x), torch.from_numpy(y), window=window, border=border, reduction="none")
    np.testing.assert_allclose(got, np.reshape(expected, (2, 3)).mean(1), atol=1e-12)


def test_ssim_gradcheck() -> None:
    x, y = torch.rand(2, 1, 2, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for border in ("valid", "zero", "reflect"):
        assert torch.autograd.gradcheck(
            lambda a, b, border=border: ops.ssim(a, b, window=5, border=border, data_range=2.0),
            (x.clone().requires_grad_(), y.clone().requires_grad_()),
        )


@pytest.mark.parametrize("window", [4, 9, 0])
def test_ssim_window_refused(window: int) -> None:
    with pytest.raises(ValueError, match=f"shorter side 8, got {window}"):
        ops.ssim(torch.rand(1, 1, 8, 9), torch.rand(1, 1, 8, 9), window=window)


def test_loss_gradcheck() -> None:
    generator = torch.Generator().manual_seed(3)
    cam = torch.randn(3, 5, 6, dtype=torch.float64, generator=generator).requires_grad_()
    target = torch.rand(3, 11, 13, generator=generator) > 0.6
    for kind, map_size in itertools.product(ops.SALIENCY_KINDS, (None, 9)):
        assert torch.autograd.gradcheck(
            lambda m, kind=kind, map_size=map_size: ops.saliency_loss(
                m, target, kind=kind, map_size=map_size, reduction="none"
            ),
            (cam,),
        )


def test_target_dtype_and_range_do_not_matter() -> None:
    cam = torch.randn(2, 7, 7, generator=torch.Generator().manual_seed(4))
    mask = torch.zeros(2, 28, 28, dtype=torch.bool)
    mask[:, 3:15, 8:20] = True
    for other in (mask.to(torch.uint8), mask.to(torch.uint8) * 255, mask.float(), mask.double() * 5):
        torch.testing.assert_close(ops.saliency_loss(cam, other), ops.saliency_loss(cam, mask))


def test_target_is_averaged_over_areas() -> None:
    cam = torch.randn(1, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    target = torch.rand(1, 21, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    blocks = target.reshape(1, 7, 3, 7, 3).mean((2, 4))
    torch.testing.assert_close(ops.saliency_loss(cam, target), ops.saliency_loss(cam, blocks))


def test_map_size_upsamples_the_cam() -> None:
    cam = torch.randn(1, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    target = torch.rand(1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    x = ops.minmax_normalize(F.interpolate(cam[None], (28, 28), mode="bilinear")[0])
    y = ops.minmax_normalize(target)
    expected = 1 - ops.ssim(x[None], y[None], window=11) + (x - y).abs().mean()
    torch.testing.assert_close(ops.saliency_loss(cam, target, map_size=28), expected)


@pytest.mark.parametrize(("size", "window"), [(3, 3), (4, 3), (5, 5), (6, 5), (7, 7), (8, 7)])
def test_default_window_is_the_largest_odd_that_fits(size: int, window: int) -> None:
    cam = torch.randn(2, size, size, generator=torch.Generator().manual_seed(9))
    target = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(10))
    torch.testing.assert_close(ops.saliency_loss(cam, target), ops.saliency_loss(cam, target, window=window))


@pytest.mark.parametrize("flat", [0, 1])
def test_flat_target_counts_as_no_map(flat: int) -> None:
    cam = torch.randn(2, 4, 4, requires_grad=True)
    target = torch.full((2, 16, 16), flat, dtype=torch.uint8)
    target[1, :8] = 1 - flat
    loss = ops.saliency_loss(cam, target, reduction="none")
    loss.sum().backward()
    assert loss[0] == 0
    assert loss[1] > 0
    assert cam.grad is not None
    assert torch.equal(cam.grad[0], torch.zeros(4, 4))
    assert ops.says_where(target, (4, 4)).tolist() == [False, True]


def test_cyborg_is_equation_1() -> None:
    generator = torch.Generator().manual_seed(11)
    logits = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    cam = torch.randn(4, 7, 7, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 4, 2, 2])
    target = torch.rand(4, 14, 14, dtype=torch.float64, generator=generator)
    has_map = torch.tensor([True, False, True, False])
    saliency = ops.saliency_loss(cam, target, reduction="none")
    by_hand = 0.0
    for i in range(4):
        ce = -float(torch.log(torch.exp(logits[i, labels[i]]) / torch.exp(logits[i]).sum()))
        by_hand += 0.3 * ce + 0.7 * float(saliency[i]) * bool(has_map[i])
    got = ops.cyborg_loss(logits, cam, labels, target, alpha=0.3, has_map=has_map)
    assert float(got) == pytest.approx(by_hand / 4, abs=1e-12)
    alone = ops.cyborg_loss(logits, cam, labels, target, alpha=1.0, has_map=has_map)
    assert float(alone) == pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-12)


def test_empty_batch() -> None:
    none = torch.empty(0, 7, 7)
    loss = ops.cyborg_loss(
        torch.empty(0, 3), none, torch.empty(0, dtype=torch.int64), torch.empty(0, 14, 14), alpha=0.5
    )
    assert float(loss) == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ops.saliency_loss(torch.rand(2, 4, 4), torch.rand(2, 8, 8, device="meta")),
            ValueError,
            "expected tensors on one device, got cam on cpu, target on meta",
        ),
        (lambda: ops.saliency_loss(torch.rand(2, 4, 4), torch.rand(3, 8, 8)), ValueError, r"\[2, \*, \*\]"),
        (
            lambda: ops.saliency_loss(torch.rand(2, 4, 4), torch.rand(2, 8, 8), window=5),
            ValueError,
            "side 4, got 5",
        ),
        (
            lambda: ops.saliency_loss(torch.rand(2, 4, 4), torch.rand(2, 8, 8), kind="l2"),
            ValueError,
            "ssim_l1, mse",
        ),
        (lambda: ops.saliency_loss(torch.zeros(2, 4, 4).long(), torch.rand(2, 8, 8)), TypeError, "floating"),
    ],
)
def test_errors_say_expected_and_got(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
