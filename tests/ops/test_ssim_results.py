"""sal_fast.ops.ssim beyond a mean in float32: exact means, whole numbers, masks and maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from precision import HALVES, assert_as_good_as_torch, name_of
from scipy.ndimage import correlate1d
from torch import Tensor

from sal_fast import _native, ops
from sal_fast.ops.ssim import BORDERS, reference

on_the_cpu = pytest.mark.skipif(_native.core() is None, reason="there is no native core")
borders = pytest.mark.parametrize("border", BORDERS)
WHOLE = {torch.uint8: 255.0, torch.uint16: 65535.0}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def photographs(side: int = 192) -> tuple[Tensor, Tensor]:
    """Two images like photographs, [2, 3, side, side] in [0, 1]: a burnt-out sky, a slope, texture, edges."""
    down, across = torch.meshgrid(*[torch.linspace(0, 1, side, dtype=torch.float64)] * 2, indexing="ij")
    texture = 0.1 * torch.sin(60 * across) * torch.sin(47 * down)
    scene = torch.where(down < 0.4, 1.0, 0.3 + 0.4 * across + texture)
    scene = torch.where((down - 0.6) ** 2 + (across - 0.5) ** 2 < 0.02, 0.05, scene)
    x = torch.stack([scene, 0.7 * scene + 0.2 * down]).unsqueeze(1).repeat(1, 3, 1, 1)
    noise = 0.03 * (draw(2, 3, side, side) - 0.5) * (down > 0.25)
    return x.clamp(0, 1), (0.97 * x + noise).clamp(0, 1)


def random_images() -> tuple[Tensor, Tensor]:
    return draw(2, 3, 70, 90), draw(2, 3, 70, 90, seed=1)


def in_float64(x: Tensor, y: Tensor, data_range: float = 1.0) -> np.ndarray:
    """The mean of each image by scipy, with a window of 11 inside the image."""
    taps = np.exp(-(np.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def blur(image: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(image, taps, 2), taps, 3)[..., 5:-5, 5:-5]

    a, b = x.double().numpy(), y.double().numpy()
    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    of_each = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    mean: np.ndarray = of_each.mean((1, 2, 3))
    return mean


# Exact means -----------------------------------------------------------------------------------------------


@on_the_cpu
@pytest.mark.parametrize("make", [photographs, random_images])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES], ids=name_of)
def test_float64_is_exact_and_float32_is_its_rounding(make, dtype: torch.dtype) -> None:
    x, y = (image.to(dtype) for image in make())
    expected = in_float64(x, y)
    exact = ops.ssim(x, y, reduction="none", out_dtype=torch.float64)
    assert exact.dtype == torch.float64
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-12)
    rounded = ops.ssim(x, y, reduction="none", out_dtype=torch.float32)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, exact.float())


@on_the_cpu
@pytest.mark.parametrize("make", [photographs, random_images])
@pytest.mark.parametrize(("dtype", "most"), WHOLE.items(), ids=str)
def test_whole_numbers_are_exact(make, dtype: torch.dtype, most: float) -> None:
    x, y = ((image * most).round().to(dtype) for image in make())
    exact = ops.ssim(x, y, reduction="none", out_dtype=torch.float64)
    np.testing.assert_allclose(exact, in_float64(x, y, most), rtol=0, atol=1e-12)
    assert torch.equal(ops.ssim(x, y, reduction="none"), exact.float())


@on_the_cpu
@borders
@pytest.mark.parametrize("window", [1, 3, 7, 11, 15])
def test_every_window_is_exact(window: int, border: str) -> None:
    x, y = (image.float() for image in random_images())
    exact = reference.ssim(x.double(), y.double(), window, 1.5, border, 1.0).mean()
    got = ops.ssim(x, y, window=window, border=border, out_dtype=torch.float64)
    assert float(got) == pytest.approx(float(exact), rel=0, abs=1e-12)


@on_the_cpu
@pytest.mark.parametrize("width", [521, 523, 1100])
def test_wide_images_are_exact(width: int) -> None:
    """They are cut into strips of columns."""
    x, y = draw(1, 2, 24, width), draw(1, 2, 24, width, seed=1)
    bytes_x, bytes_y = ((255 * image).byte() for image in (x, y))
    for a, b, most in (
        (x.float(), y.float(), 1.0),
        (x, y, 1.0),
        (bytes_x.contiguous(memory_format=torch.channels_last), bytes_y, 255.0),
        (bytes_x.transpose(2, 3).contiguous().transpose(2, 3), bytes_y, 255.0),
    ):
        exact = ops.ssim(a, b, reduction="none", out_dtype=torch.float64)
        np.testing.assert_allclose(exact, in_float64(a, b, most), rtol=0, atol=1e-12)


@on_the_cpu
def test_gradients_beside_an_exact_mean_are_the_same() -> None:
    x, y = (image.float() for image in random_images())
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaf = x.clone().requires_grad_()
        value = ops.ssim(leaf, y, out_dtype=dtype)
        assert value.dtype == dtype
        assert value.item() == pytest.approx(float(ops.ssim(x, y, out_dtype=dtype)), rel=2e-7)
        gradients += torch.autograd.grad(value, leaf)
    assert gradients[0].dtype == gradients[1].dtype == torch.float32
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=0)


# Whole numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "most"), WHOLE.items(), ids=str)
def test_whole_numbers_are_what_their_floats_are(
    dtype: torch.dtype, most: float, device: torch.device
) -> None:
    x, y = ((image * most).round().to(dtype).to(device) for image in random_images())
    expected = ops.ssim(x.float(), y.float(), data_range=most, reduction="none")
    torch.testing.assert_close(ops.ssim(x, y, reduction="none"), expected, rtol=0, atol=1e-6)
    sliced = ops.ssim(x[:, :, 1::2, 3::2], y[:, :, 1::2, 3::2], window=7)
    floats = ops.ssim(x.float()[:, :, 1::2, 3::2], y.float()[:, :, 1::2, 3::2], window=7, data_range=most)
    torch.testing.assert_close(sliced, floats, rtol=0, atol=1e-6)
    for order in (torch.channels_last, torch.contiguous_format):
        ordered = ops.ssim(x.contiguous(memory_format=order), y, reduction="none")
        torch.testing.assert_close(ordered, expected, rtol=0, atol=1e-6)


# Masks -----------------------------------------------------------------------------------------------------


def weighted(x: Tensor, y: Tensor, mask: Tensor, window: int, border: str) -> Tensor:
    """By the map: pixel by pixel, the weight of the window's centre."""
    maps = reference.ssim(x, y, window, 1.5, border, 1.0)
    pad = (window // 2) if border == "valid" else 0
    weights = mask[:, :, pad : mask.shape[2] - pad, pad : mask.shape[3] - pad].double()
    weights = weights.expand_as(maps)
    return (maps * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3))


@borders
@pytest.mark.parametrize("window", [5, 11])
@pytest.mark.parametrize("channels", [1, 3])
def test_masks(channels: int, window: int, border: str, device: torch.device) -> None:
    x, y = random_images()
    mask = draw(2, channels, 70, 90, seed=2) * (draw(2, channels, 70, 90, seed=3) > 0.5)
    upstream = torch.tensor([1.0, -2.0], dtype=torch.float64)
    results = []
    for make, dtype in ((weighted, torch.float64), (weighted, torch.float32), (None, torch.float32)):
        a, b = (image.to(dtype).requires_grad_() for image in (x, y))
        if make:
            values = make(a, b, mask, window, border)
        else:
            a, b = (image.detach().to(device).requires_grad_() for image in (a, b))
            values = ops.ssim(
                a, b, mask=mask.to(device, torch.float32), window=window, border=border, reduction="none"
            )
        gradients = torch.autograd.grad((values.cpu() * upstream).sum(), (a, b))
        results.append((values, *gradients))
    for exact, torchs, ours in zip(*results, strict=True):
        assert_as_good_as_torch(ours, torchs, exact, 1e-6)


def test_masks_of_every_form_are_one(device: torch.device) -> None:
    x, y = (image.float().to(device) for image in random_images())
    mask = (draw(2, 70, 90, seed=2) > 0.6).to(device)
    expected = ops.ssim(x, y, mask=mask)
    for other in (
        mask[:, None], mask[:, None].expand(-1, 3, -1, -1), mask.float(), mask.half()[:, None],
        mask.to(torch.uint8), 255 * mask.to(torch.uint8), mask.double() * 1e-3, ops.BitMask.pack(mask),
    ):  # fmt: skip
        torch.testing.assert_close(ops.ssim(x, y, mask=other), expected, rtol=1e-6, atol=0)
    everywhere = torch.ones_like(mask)
    torch.testing.assert_close(ops.ssim(x, y, mask=everywhere), ops.ssim(x, y), rtol=1e-6, atol=0)


def test_a_mask_of_nothing_gives_nan_for_its_image(device: torch.device) -> None:
    x, y = (image.float().to(device) for image in random_images())
    mask = torch.ones(2, 70, 90, dtype=torch.bool, device=device)
    mask[1] = False
    assert ops.ssim(x, y, mask=mask, reduction="none").isnan().tolist() == [False, True]


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.ones(2, 8, 9), ValueError, r"mask must have shape \[2, 8, 8\], got \[2, 8, 9\]"),
        (torch.ones(2, 2, 8, 8), ValueError, r"mask must have shape \[2, 1, 8, 8\], got \[2, 2, 8, 8\]"),
        (-torch.ones(2, 8, 8), ValueError, "weights of at least 0, got -1"),
        (torch.ones(2, 8, 8, requires_grad=True), ValueError, r"give mask\.detach\(\)"),
        (torch.ones(2, 8, 8, dtype=torch.complex64), TypeError, "mask must be of a real dtype"),
        ([[1.0]], TypeError, "mask must be a tensor, got list"),
    ],
)
def test_masks_refused(mask: Tensor, error: type[Exception], message: str) -> None:
    x = torch.rand(2, 3, 8, 8)
    with pytest.raises(error, match=message):
        ops.ssim(x, x, window=3, mask=mask)


def test_a_dtype_refused() -> None:
    x = torch.rand(1, 1, 12, 12)
    with pytest.raises(TypeError, match=r"out_dtype must be float32 or float64, got torch\.float16"):
        ops.ssim(x, x, out_dtype=torch.float16)


# Maps ------------------------------------------------------------------------------------------------------


@borders
@pytest.mark.parametrize("window", [1, 5, 11])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=name_of)
def test_maps(window: int, border: str, dtype: torch.dtype, device: torch.device) -> None:
    x, y = (image.to(dtype) for image in random_images())
    exact_x, exact_y = (image.double().requires_grad_() for image in (x, y))
    exact = reference.ssim(exact_x, exact_y, window, 1.5, border, 1.0)
    float_x, float_y = (image.float().requires_grad_() for image in (x, y))
    torchs = reference.ssim(float_x, float_y, window, 1.5, border, 1.0)
    a, b = (image.to(device).requires_grad_() for image in (x, y))
    got = ops.ssim_map(a, b, window=window, border=border)
    assert got.dtype == torch.float32
    assert_as_good_as_torch(got, torchs, exact, 1e-6)
    upstream = draw(*exact.shape, seed=4) - 0.5
    expected = torch.autograd.grad((exact * upstream).sum(), (exact_x, exact_y))
    same = torch.autograd.grad((torchs * upstream.float()).sum(), (float_x, float_y))
    ours = torch.autograd.grad((got * upstream.to(device, torch.float32)).sum(), (a, b))
    eps = max(1e-6, torch.finfo(dtype).eps)
    for gradient, theirs, exactly in zip(ours, same, expected, strict=True):
        assert gradient.dtype == dtype
        assert_as_good_as_torch(gradient, theirs, exactly, eps)


@borders
def test_the_mean_of_a_map_is_the_similarity(border: str, device: torch.device) -> None:
    x, y = (image.float().to(device) for image in random_images())
    for a, b in ((x, y), ((x * 255).byte(), (y * 255).byte())):
        maps = ops.ssim_map(a, b, border=border, out_dtype=torch.float64)
        assert maps.dtype == torch.float64
        mean = ops.ssim(a, b, border=border, out_dtype=torch.float64)
        assert float(maps.mean()) == pytest.approx(float(mean), rel=0, abs=1e-12)


def test_one_gradient_of_a_map(device: torch.device) -> None:
    x, y = (image.float().to(device) for image in random_images())
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    both = torch.autograd.grad((ops.ssim_map(a, b) ** 2).sum(), (a, b))
    assert torch.equal(torch.autograd.grad((ops.ssim_map(a, y) ** 2).sum(), a)[0], both[0])
    assert torch.equal(torch.autograd.grad((ops.ssim_map(x, b) ** 2).sum(), b)[0], both[1])
    with pytest.raises(NotImplementedError, match="only first derivatives"):
        torch.autograd.grad(ops.ssim_map(a, y).sum(), a, create_graph=True)[0].sum().backward()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
def test_opcheck_of_the_map(device: torch.device) -> None:
    for batch in (2, 0):
        x, y = (draw(batch, 1, 12, 13, seed=i).float().to(device).requires_grad_() for i in (0, 1))
        arguments = (x, y, 7, 1.5, "valid", 1.0, False, False)
        torch.library.opcheck(torch.ops.sal_fast.ssim_map.default, arguments)


def test_empty_batches(device: torch.device) -> None:
    x = torch.empty(0, 3, 16, 17, device=device)
    assert ops.ssim_map(x, x).shape == (0, 3, 6, 7)
    assert ops.ssim(x, x, mask=torch.ones(0, 16, 17, device=device), reduction="none").shape == (0,)
