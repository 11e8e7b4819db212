"""sal_fast.ops.ssim: against direct sums, float64 and the packages that define each border."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from precision import HALVES, assert_as_good_as_torch, assert_replays, full, name_of, on_gpu, run_python
from scipy.ndimage import correlate
from torch import Tensor

from sal_fast import ops
from sal_fast.ops.ssim import BORDERS, reference

borders = pytest.mark.parametrize("border", BORDERS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=name_of)
WINDOWS = (3, 5, 7, 9, 11)


def images(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two different images in [0, 1]."""
    x, y = torch.rand(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x.to(dtype), (0.7 * y + 0.3 * x).to(dtype)


def with_gradients(x: Tensor, y: Tensor, upstream: Tensor, **options) -> tuple[Tensor, Tensor, Tensor]:
    """Per-image values and both gradients, through the public function."""
    x, y = x.detach().clone().requires_grad_(), y.detach().clone().requires_grad_()
    values = ops.ssim(x, y, reduction="none", **options)
    (values * upstream).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    return values.detach(), x.grad, y.grad


def torchs(x: Tensor, y: Tensor, upstream: Tensor, **options) -> tuple[Tensor, Tensor, Tensor]:
    """The same in plain torch, at the precision of the images."""
    a, b = x.detach().clone().requires_grad_(), y.detach().clone().requires_grad_()
    values = reference.ssim(a, b, sigma=1.5, data_range=1.0, **options).mean((1, 2, 3))
    grads = torch.autograd.grad((values * upstream).sum(), (a, b))
    return values.detach(), *grads


def check(x: Tensor, y: Tensor, **options) -> None:
    upstream = torch.linspace(-1, 2, len(x), dtype=torch.float64, device=x.device)
    got = with_gradients(x, y, upstream.float(), **options)
    exact = torchs(x.double(), y.double(), upstream, **options)
    same = torchs(x.float(), y.float(), upstream.float(), **options)
    # The gradients of half types are rounded to them once.
    grad_eps = 1e-6 if x.dtype == torch.float32 else torch.finfo(x.dtype).eps
    for ours, theirs, float64, eps in zip(got, same, exact, (1e-6, grad_eps, grad_eps), strict=True):
        assert_as_good_as_torch(ours, theirs, float64, eps)


# Values ----------------------------------------------------------------------------------------------------


def gaussian(window: int, sigma: float = 1.5) -> np.ndarray:
    taps = np.array([np.exp(-((i - window // 2) ** 2) / (2 * sigma**2)) for i in range(window)])
    return np.outer(taps, taps) / taps.sum() ** 2


@borders
@pytest.mark.parametrize("window", WINDOWS)
def test_reference_by_direct_sums(window: int, border: str) -> None:
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


@borders
@pytest.mark.parametrize("window", WINDOWS)
def test_every_window(window: int, border: str, device: torch.device) -> None:
    x, y = images(2, 3, 17, 40, dtype=torch.float32, seed=window)
    check(x.to(device), y.to(device), window=window, border=border)


def test_a_window_of_one_pixel(device: torch.device) -> None:
    """No variance, so S is the luminance term alone."""
    x, y = (image.to(device) for image in images(2, 1, 5, 6, dtype=torch.float32))
    expected = (2 * x * y + 1e-4) / (x * x + y * y + 1e-4)
    torch.testing.assert_close(ops.ssim(x, y, window=1), expected.mean(), rtol=1e-5, atol=0)


@borders
@dtypes
@pytest.mark.parametrize("shape", [(1, 1, 11, 11), (3, 2, 12, 75), (1, 1, 601, 33), (2, 1, 33, 530)])
def test_sizes_and_dtypes(
    shape: tuple[int, ...], dtype: torch.dtype, border: str, device: torch.device
) -> None:
    x, y = images(*shape, dtype=dtype)
    check(x.to(device), y.to(device), window=11, border=border)


@borders
def test_a_window_larger_than_a_band(border: str, device: torch.device) -> None:
    x, y = images(1, 1, 700, 80, dtype=torch.float32)
    check(x.to(device), y.to(device), window=71, border=border)


@borders
def test_strides(border: str, device: torch.device) -> None:
    """channels_last, a slice, an expanded image: read as they are."""
    x, y = (image.to(device) for image in images(2, 3, 20, 29, dtype=torch.float32))
    expected = with_gradients(x, y, torch.ones(2, device=device), border=border)
    wide = torch.full((2, 3, 20, 60), torch.nan, device=device)
    wide[..., 1::2][..., :29] = y
    for other_x, other_y in [
        (x.contiguous(memory_format=torch.channels_last), y),
        (x, wide[..., 1::2][..., :29]),
        (x.transpose(2, 3).contiguous().transpose(2, 3), y.contiguous(memory_format=torch.channels_last)),
    ]:
        a, b = other_x.detach().requires_grad_(), other_y.detach().requires_grad_()
        values = ops.ssim(a, b, border=border, reduction="none")
        grads = torch.autograd.grad(values.sum(), (a, b))
        for got, want in zip((values, *grads), expected, strict=True):
            assert torch.equal(got, want)
    one = x[:1].expand(2, -1, -1, -1)
    assert torch.equal(
        ops.ssim(one, y, border=border, reduction="none")[0],
        ops.ssim(x, y, border=border, reduction="none")[0],
    )


def test_one_gradient(device: torch.device) -> None:
    x, y = (image.to(device) for image in images(2, 1, 15, 16, dtype=torch.float32))
    _, grad_x, grad_y = with_gradients(x, y, torch.ones(2, device=device))
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    assert torch.equal(torch.autograd.grad(ops.ssim(a, y, reduction="sum"), a)[0], grad_x)
    assert torch.equal(torch.autograd.grad(ops.ssim(x, b, reduction="sum"), b)[0], grad_y)
    with torch.no_grad():
        assert not ops.ssim(a, b).requires_grad


def test_reductions_and_data_range(device: torch.device) -> None:
    x, y = (image.to(device) for image in images(3, 2, 14, 15, dtype=torch.float32))
    values = ops.ssim(x, y, reduction="none")
    torch.testing.assert_close(ops.ssim(x, y), values.mean())
    torch.testing.assert_close(ops.ssim(x, y, reduction="sum"), values.sum())
    torch.testing.assert_close(
        ops.ssim(255 * x, 255 * y, data_range=255.0, reduction="none"), values, rtol=1e-5, atol=1e-6
    )


@borders
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_flat_images(level: float, border: str, device: torch.device) -> None:
    """Where both are flat S is 1 and not above, however the moments cancel."""
    x = torch.full((1, 1, 24, 24), level, device=device)
    got = ops.ssim(x, x.clone(), border=border)
    assert float(got) <= 1 + 1e-6
    assert float(got) == pytest.approx(1, abs=1e-5)


def test_nan_stays_in_its_image(device: torch.device) -> None:
    x, y = (image.to(device) for image in images(3, 1, 12, 12, dtype=torch.float32))
    clean = ops.ssim(x, y, reduction="none")
    x[1, 0, 5, 5] = torch.nan
    got = ops.ssim(x, y, reduction="none")
    assert got.isnan().tolist() == [False, True, False]
    assert torch.equal(got[[0, 2]], clean[[0, 2]])


def test_empty_batch(device: torch.device) -> None:
    x = torch.empty(0, 3, 16, 16, device=device, requires_grad=True)
    assert ops.ssim(x, x.detach()).item() == 0
    assert ops.ssim(x, x.detach(), reduction="none").shape == (0,)


# Other packages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [3, 7, 11])
def test_valid_is_pytorch_msssim(window: int) -> None:
    pytorch_msssim = pytest.importorskip("pytorch_msssim")
    x, y = images(2, 3, 30, 25)
    # Its Gaussian is float32 at heart.
    win = torch.from_numpy(gaussian(window)[window // 2] / gaussian(window)[window // 2].sum())
    expected = pytorch_msssim.ssim(
        x, y, data_range=1.0, size_average=False, win=win.expand(3, 1, 1, -1), nonnegative_ssim=False
    )
    torch.testing.assert_close(
        ops.ssim(x, y, window=window, reduction="none"), expected, rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(
        ops.ssim(x.float(), y.float(), window=window, reduction="none").double(),
        expected,
        rtol=1e-5,
        atol=1e-5,
    )


def test_zero_is_fused_ssim() -> None:
    """Its definition: convolutions padded by half the window with zeros, and a mean over all pixels."""
    x, y = images(2, 3, 30, 25)
    kernel = torch.from_numpy(gaussian(11)).expand(3, 1, 11, 11)

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(image, kernel, padding=5, groups=3)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    expected = (2 * mx * my + 0.01**2) * (2 * cov + 0.03**2)
    expected /= (mx**2 + my**2 + 0.01**2) * (vx + vy + 0.03**2)
    assert float(ops.ssim(x, y, border="zero")) == pytest.approx(float(expected.mean()), abs=1e-12)
    assert float(ops.ssim(x.float(), y.float(), border="zero")) == pytest.approx(
        float(expected.mean()), abs=1e-5
    )


def test_reflect_is_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    x, y = images(2, 3, 30, 25)
    _, full = functional.structural_similarity_index_measure(
        x, y, gaussian_kernel=True, sigma=1.5, data_range=1.0, return_full_image=True
    )
    expected = float(full.mean())
    assert float(ops.ssim(x, y, border="reflect")) == pytest.approx(expected, abs=1e-6)
    assert float(ops.ssim(x.float(), y.float(), border="reflect")) == pytest.approx(expected, abs=1e-5)


# Gradients and the torch operator --------------------------------------------------------------------------


@borders
def test_gradcheck(border: str) -> None:
    x, y = images(1, 2, 6, 7)
    assert torch.autograd.gradcheck(
        lambda a, b: ops.ssim(a, b, window=5, border=border, data_range=2.0),
        (x.requires_grad_(), y.requires_grad_()),
    )


def test_second_derivative_is_refused(device: torch.device) -> None:
    x, y = (image.to(device).requires_grad_() for image in images(1, 1, 11, 11, dtype=torch.float32))
    (grad,) = torch.autograd.grad(ops.ssim(x, y), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="only first derivatives"):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, *map(full, HALVES)], ids=name_of)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
def test_opcheck(dtype: torch.dtype, device: torch.device) -> None:
    for batch, with_x, with_y in itertools.product((2, 0), (True, False), (True, False)):
        x, y = (image.to(device) for image in images(batch, 1, 12, 13, dtype=dtype))
        settings = (7, 1.5, "valid", 1.0, False, False, with_x, with_y)
        arguments = (x.requires_grad_(with_x), y.requires_grad_(with_y), None, *settings)
        torch.library.opcheck(torch.ops.sal_fast.ssim.default, arguments)


def test_compile(device: torch.device) -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        return 2 * ops.ssim(x + 0.1, y, window=7)

    x, y = (image.to(device) for image in images(2, 1, 12, 13, dtype=torch.float32))
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    loss(a, y).backward()
    compiled(b, y).backward()
    torch.testing.assert_close(a.grad, b.grad)


def test_meta() -> None:
    x = torch.empty(3, 2, 20, 20, device="meta", requires_grad=True)
    values = ops.ssim(x, torch.empty_like(x), reduction="none")
    assert values.shape == (3,)
    values.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@dtypes
def test_autocast_changes_nothing(dtype: torch.dtype, device: torch.device) -> None:
    x, y = (image.to(device) for image in images(2, 1, 12, 13, dtype=dtype))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = ops.ssim(x, y)
    assert torch.equal(inside, ops.ssim(x, y))
    assert inside.dtype == torch.float32


@on_gpu
@borders
def test_replayed_graph_on_a_side_stream(border: str) -> None:
    (x, y), (other, _) = images(2, 3, 70, 90, dtype=torch.float32), images(2, 3, 70, 90, seed=1)
    x, y = x.cuda().requires_grad_(), y.cuda().requires_grad_()

    def step() -> list[Tensor]:
        value = ops.ssim(x, y, border=border)
        return [value, *torch.autograd.grad(value, (x, y))]

    assert_replays(step, lambda: x.copy_(other))


SCRIPT = """
import torch
from sal_fast import ops
torch.set_num_threads({threads})
generator = torch.Generator().manual_seed(0)
x, y = torch.rand(2, 2, 3, 300, 37, generator=generator)
x.requires_grad_()
value = ops.ssim(x, y, border="reflect")
value.backward()
print(value.item(), x.grad.double().norm().item(), (x.grad * y).double().sum().item())
"""


def test_any_number_of_threads_gives_the_same_bits() -> None:
    x, y = images(2, 3, 600, 37, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(with_gradients(x, y, torch.ones(2), border="reflect"))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*results, strict=True))


@pytest.mark.full
def test_every_build_agrees() -> None:
    """Each instruction set, and the reference."""
    best = run_python(SCRIPT.format(threads=1))
    expected = [float(number) for number in best.split()]
    for environment in (
        {"SAL_FAST_CPU_CAPABILITY": "generic"},
        {"SAL_FAST_CPU_CAPABILITY": "avx2"},
        {"SAL_FAST_NATIVE": "0"},
    ):
        got = [float(number) for number in run_python(SCRIPT.format(threads=2), **environment).split()]
        np.testing.assert_allclose(got, expected, rtol=2e-5)


@pytest.mark.parametrize("window", [4, 9, 0])
def test_window_refused(window: int) -> None:
    with pytest.raises(ValueError, match=f"shorter side 8, got {window}"):
        ops.ssim(torch.rand(1, 1, 8, 9), torch.rand(1, 1, 8, 9), window=window)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (
            torch.rand(1, 8, 8),
            torch.rand(1, 8, 8),
            ValueError,
            r"x must have shape \[\*, \*, \*, \*\], got \[1, 8, 8\]",
        ),
        (torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 9), ValueError, r"y must have shape \[1, 1, 8, 8\]"),
        (torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8).half(), TypeError, "expected one dtype"),
        (
            torch.zeros(1, 1, 8, 8).int(),
            torch.rand(1, 1, 8, 8),
            TypeError,
            "x must be of a floating dtype, uint8 or uint16, got torch.int32",
        ),
        (torch.rand(1, 0, 8, 8), torch.rand(1, 0, 8, 8), ValueError, "at least one channel"),
    ],
)
def test_errors(x: Tensor, y: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.ssim(x, y, window=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma must be above 0, got 0"),
        ({"data_range": -1.0}, "data_range must be above 0, got -1"),
    ],
)
def test_settings_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.ssim(torch.rand(1, 1, 12, 12), torch.rand(1, 1, 12, 12), **options)
