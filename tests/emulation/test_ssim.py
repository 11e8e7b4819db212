"""csrc/cuda/ssim.cu, executed on the host, against the float64 reference."""

import dataclasses
import itertools

import pytest
import torch
from precision import full
from torch import Tensor

from sal_fast.ops.ssim import BORDERS, reference

from .conftest import Emulation

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WHOLE = (torch.uint8, torch.uint16)


@dataclasses.dataclass(frozen=True)
class Case:
    size: tuple[int, int, int, int]
    window: int
    border: str = "valid"
    dtype: torch.dtype = torch.float32
    grads: str = "xy"
    layout: str = "contiguous"
    sigma: float = 1.5
    data_range: float = 1.0
    weights: str = "none"  # or "shared" by the channels, or "own"
    totals: bool = True  # whether the sum is divided by that of the weights
    structure: bool = False
    map: bool = False
    seed: int = 0
    most_blocks: int = 1 << 20

    def images(self) -> tuple[Tensor, Tensor]:
        """The storage of both is [B, C, H, W] floats, laid out otherwise in memory."""
        draw = torch.Generator().manual_seed(self.window)
        x = torch.rand(self.size, generator=draw)
        y = 0.5 * x + 0.5 * torch.rand(self.size, generator=draw)
        x, y = (self.data_range * image.to(self.dtype) for image in (x, y))
        if self.layout == "channels_last":
            y = y.contiguous(memory_format=torch.channels_last)
        if self.layout == "sliced":
            wide = torch.full([*self.size[:2], 2 * self.size[2] - 1, 3 * self.size[3] - 1], torch.nan)
            sliced = wide.to(self.dtype)[:, :, ::2, 1::3]
            x = sliced.copy_(x)
        if self.layout == "transposed":
            x = x.transpose(2, 3).contiguous().transpose(2, 3)
        return x, y

    def positions(self) -> tuple[int, int, int, int]:
        less = self.window - 1 if self.border == "valid" else 0
        return *self.size[:2], self.size[2] - less, self.size[3] - less

    def factors(self) -> Tensor | None:
        """The weights of the positions, some of which are 0."""
        if self.weights == "none":
            return None
        images, channels, down, across = self.positions()
        own = channels if self.weights == "own" else 1
        drawn = torch.rand(images, own, down, across, generator=torch.Generator().manual_seed(7))
        return (drawn - 0.3).clamp(min=0).expand(-1, channels, -1, -1)


def storage_of(image: Tensor) -> Tensor:
    """From the image's first element on, the elements that its strides reach; contiguous."""
    used = 1 + sum((n - 1) * s for n, s in zip(image.shape, image.stride(), strict=True))
    return image.as_strided((used if image.numel() else 0,), (1,))


def strides_of(image: Tensor) -> dict[str, int]:
    return dict(zip(("image", "channel", "row", "column"), image.stride(), strict=True))


def run(
    emulation: Emulation, case: Case, x: Tensor, y: Tensor
) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
    """The values, the gradients asked for and the map; outputs and workspace are NaN before."""
    values = torch.full((len(x),), torch.nan)
    grads = {name: torch.full(case.size, torch.nan) for name in case.grads}
    similarities = torch.full(case.positions(), torch.nan) if case.map else None
    images, channels, height, width = case.size
    weights = case.factors()
    emulation.launch(
        "ssim", x=storage_of(x), y=storage_of(y), type=(*DTYPES, *WHOLE).index(case.dtype), images=images,
        channels=channels, height=height, width=width, x_strides=strides_of(x), y_strides=strides_of(y),
        weights=None if weights is None else storage_of(weights),
        weights_strides=strides_of(x if weights is None else weights),
        totals=weights.double().sum((1, 2, 3)) if weights is not None and case.totals else None,
        window=case.window, sigma=case.sigma, border=BORDERS.index(case.border), data_range=case.data_range,
        structure=case.structure, exact=False, values=values, map=similarities, grad_x=grads.get("x"),
        grad_y=grads.get("y"), seed=case.seed, most_blocks=case.most_blocks,
    )  # fmt: skip
    return values, grads, similarities


def expected(
    case: Case, x: Tensor, y: Tensor, dtype: torch.dtype
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    images = {"x": x.to(dtype).requires_grad_(), "y": y.to(dtype).requires_grad_()}
    maps = reference.ssim(
        images["x"], images["y"], case.window, case.sigma, case.border, case.data_range, case.structure
    )
    weights = case.factors()
    if weights is not None and not case.totals:
        values = (maps * weights).sum((1, 2, 3))
    else:
        values = reference.weighted_mean(maps, weights)
    inputs = [images[name] for name in case.grads]
    grads = torch.autograd.grad(values.sum(), inputs) if inputs else ()
    return values.detach(), dict(zip(case.grads, grads, strict=True)), maps.detach()


def check(emulation: Emulation, case: Case) -> None:
    """An error of at most twice that of the reference in float32, plus rounding."""
    x, y = case.images()
    values, grads, similarities = run(emulation, case, x, y)
    exact_values, exact_grads, exact_maps = expected(case, x, y, torch.float64)
    float_values, float_grads, float_maps = expected(case, x, y, torch.float32)

    def error(got: Tensor, exact: Tensor) -> float:
        difference = (got.double() - exact).abs().flatten()
        assert difference.isfinite().all(), case
        return float(difference.max()) if len(difference) else 0.0

    scale = max(1.0, float(exact_values.abs().max())) if len(exact_values) else 1.0
    assert error(values, exact_values) <= 2 * error(float_values, exact_values) + 1e-6 * scale, case
    if similarities is not None:
        assert error(similarities, exact_maps) <= 2 * error(float_maps, exact_maps) + 1e-6, case
    for name in case.grads:
        scale = float(exact_grads[name].abs().max()) if exact_grads[name].numel() else 0
        allowed = 2 * error(float_grads[name], exact_grads[name]) + 2e-6 * scale
        assert error(grads[name], exact_grads[name]) <= allowed, (case, name)


@pytest.mark.parametrize("border", BORDERS)
def test_windows(emulation: Emulation, border: str) -> None:
    for window in (1, 3, 5, 7, 9, 11):
        check(emulation, Case((1, 1, 19, 37), window, border))


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("window", [33, 35, 41])
def test_windows_of_one_chunk_of_taps_and_of_several(emulation: Emulation, border: str, window: int) -> None:
    check(emulation, Case((1, 1, 43, 41), window, border, sigma=9.0))


@pytest.mark.parametrize("border", BORDERS)
def test_images_of_one_window(emulation: Emulation, border: str) -> None:
    for window in (1, 3, 7, 11):
        check(emulation, Case((2, 1, window, window), window, border))


@pytest.mark.parametrize(
    ("dtype", "grads"),
    [
        case
        if case in ((torch.float32, ""), (torch.float16, "x"), (torch.bfloat16, "y"), (torch.float16, "xy"))
        else full(*case)
        for case in itertools.product(DTYPES, ("", "x", "y", "xy"))
    ],
)
def test_types_and_which_gradients(emulation: Emulation, dtype: torch.dtype, grads: str) -> None:
    for window in (5, 11):
        check(emulation, Case((2, 1, 13, 14), window, "zero", dtype, grads))


@pytest.mark.parametrize("window", [7, full(9)])
@pytest.mark.parametrize("layout", ["channels_last", "sliced", "transposed"])
def test_layouts_and_channels(emulation: Emulation, layout: str, window: int) -> None:
    check(emulation, Case((2, 3, 12, 35), window, "reflect", torch.float32, "xy", layout))


@pytest.mark.parametrize("data_range", [255.0, 0.01])
def test_data_ranges(emulation: Emulation, data_range: float) -> None:
    for border in BORDERS:
        check(emulation, Case((1, 1, 14, 15), 11, border, data_range=data_range))


@pytest.mark.parametrize("dtype", WHOLE)
def test_whole_numbers(emulation: Emulation, dtype: torch.dtype) -> None:
    most = torch.iinfo(dtype).max
    for window, border in ((11, "valid"), (7, "reflect"), (5, "zero")):
        case = Case((2, 3, 13, 17), window, border, dtype, "", data_range=float(most), map=True)
        check(emulation, case)


@pytest.mark.parametrize("weights", ["shared", "own"])
@pytest.mark.parametrize("border", BORDERS)
def test_weights(emulation: Emulation, border: str, weights: str) -> None:
    for window in (7, 9, 11):
        check(emulation, Case((2, 2, 13, 37), window, border, weights=weights))


def test_weights_that_are_gradients_of_a_map(emulation: Emulation) -> None:
    """Nothing is divided by their sum."""
    for border in BORDERS:
        check(emulation, Case((2, 2, 13, 37), 7, border, weights="own", totals=False))


def test_maps(emulation: Emulation) -> None:
    for window, border in itertools.product((5, 7, 11), BORDERS):
        check(emulation, Case((2, 2, 13, 37), window, border, grads="", map=True))


def test_the_structure_alone(emulation: Emulation) -> None:
    for window, weights in ((7, "none"), (11, "shared")):
        check(emulation, Case((2, 2, 13, 37), window, structure=True, weights=weights, map=True))


def test_batch_of_none(emulation: Emulation) -> None:
    check(emulation, Case((0, 3, 12, 12), 11))


def test_few_blocks_and_any_order_of_threads_give_the_same_bits(emulation: Emulation) -> None:
    for window in (5, 7):
        case = Case((3, 2, 17, 34), window, "reflect")
        x, y = case.images()
        first, first_grads, _ = run(emulation, case, x, y)
        for seed in (1, 2):
            other = dataclasses.replace(case, seed=seed, most_blocks=2)
            values, grads, _ = run(emulation, other, x, y)
            assert torch.equal(values, first)
            assert all(torch.equal(grads[name], first_grads[name]) for name in "xy")


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_flat_images_stay_within_one(emulation: Emulation, level: float) -> None:
    """`E[xx] - mu^2` cancels there, to either side of 0."""
    for border in BORDERS:
        case = Case((1, 1, 15, 16), 11, border)
        flat = torch.full(case.size, level)
        values, grads, _ = run(emulation, case, flat, flat)
        assert abs(float(values) - 1) <= 1e-6
        assert grads["x"].abs().max() <= 1e-5  # 2 / C2 times the rounding of the moments
        other = torch.full(case.size, 1 - level)
        values, _, _ = run(emulation, case, flat, other)
        exact, _, _ = expected(case, flat, other, torch.float64)
        assert abs(float(values) - float(exact)) <= 5e-5


def test_a_nan_stays_in_its_image(emulation: Emulation) -> None:
    case = Case((2, 1, 12, 12), 11)
    x, y = case.images()
    x[1, 0, 6, 6] = torch.nan
    values, grads, _ = run(emulation, case, x, y)
    assert values.isnan().tolist() == [False, True]
    assert grads["x"].isnan().flatten(1).any(1).tolist() == [False, True]
