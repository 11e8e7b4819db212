"""csrc/cuda/saliency_loss.cu, executed on the host, against the float64 reference."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from precision import full
from torch import Tensor

from sal_fast.ops.saliency_loss import KINDS, reference
from sal_fast.ops.ssim import BORDERS

from .conftest import Emulation

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BYTES, BITS = 3, 4

# CAM, loss, window: at most 32 x 32 pixels, which one kernel does, and more.
FEW = [
    ((7, 7), (7, 7), 7),
    ((4, 4), (4, 4), 3),
    ((5, 6), (5, 6), 5),
    ((7, 7), (28, 28), 11),
    ((3, 5), (31, 33), 31),
]
MANY = [((7, 12), (24, 37), 9), ((7, 12), (24, 47), 5), ((7, 7), (45, 45), 7), ((7, 7), (64, 64), 11)]


@dataclasses.dataclass(frozen=True)
class Case:
    cam: tuple[int, int] = (7, 7)
    size: tuple[int, int] = (7, 7)
    window: int = 7
    border: str = "valid"
    kind: str = "ssim_l1"
    images: int = 2
    target: tuple[int, int] = (50, 61)
    seed: int = 0
    most_blocks: int = 1 << 20
    weight: float = 1.0  # of the gradient

    def cams(self) -> Tensor:
        return torch.randn(self.images, *self.cam, generator=torch.Generator().manual_seed(self.window))

    def targets(self) -> Tensor:
        """Bytes: blobs of 0 to 255."""
        draw = torch.Generator().manual_seed(1)
        coarse = torch.rand(self.images, 1, 5, 5, generator=draw)
        return (255 * torch.nn.functional.interpolate(coarse, self.target)[:, 0]).to(torch.uint8)


def packed(target: Tensor) -> Tensor:
    """Bool [B, H, W] as int32 words [B, H, ceil(W / 32)], the lowest bit first; unused bits are set."""
    bits = torch.nn.functional.pad(target.long(), (0, -target.shape[-1] % 32), value=1)
    words = (bits.unflatten(-1, (-1, 32)) << torch.arange(32)).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def run(
    emulation: Emulation,
    case: Case,
    cam: Tensor,
    target: Tensor,
    *,
    has_map: Tensor | None = None,
    bits: bool = False,
    grad: bool = True,
    offset: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """The values and the gradient; outputs and workspace are NaN before."""
    stored = packed(target) if bits else target
    kind = BITS if bits else DTYPES.index(target.dtype) if target.is_floating_point() else BYTES
    used = 1 + sum((n - 1) * s for n, s in zip(stored.shape, stored.stride(), strict=True))
    storage = stored.as_strided((used if stored.numel() else 0,), (1,))
    values = torch.full((len(cam),), torch.nan)
    gradient = torch.full(cam.shape, torch.nan) if grad else None
    images, cam_height, cam_width = cam.shape
    image_stride, row_stride, column_stride = stored.stride()
    emulation.launch(
        "saliency_loss", cam=cam, dtype=DTYPES.index(cam.dtype), images=images, cam_height=cam_height,
        cam_width=cam_width, target=storage, target_type=kind, target_height=target.shape[1],
        target_width=target.shape[2], target_image_stride=image_stride, target_row_stride=row_stride,
        target_column_stride=column_stride, has_map=has_map, height=case.size[0], width=case.size[1],
        window=case.window, sigma=reference.SIGMA, border=BORDERS.index(case.border),
        kind=KINDS.index(case.kind), weight=case.weight, values=values, total=None, grad=gradient,
        seed=case.seed, most_blocks=case.most_blocks,
    )  # fmt: skip
    return values, gradient


def expected(
    case: Case, cam: Tensor, target: Tensor, has_map: Tensor | None = None, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    cam = cam.to(dtype, copy=True).requires_grad_()
    values = reference.saliency_loss(
        cam, target.to(dtype), has_map, case.size, case.window, case.border, case.kind
    )
    return values.detach(), torch.autograd.grad(values.sum(), cam)[0]


def check(
    emulation: Emulation,
    case: Case,
    cam: Tensor | None = None,
    target: Tensor | None = None,
    *,
    has_map: Tensor | None = None,
    bits: bool = False,
) -> None:
    """An error of at most twice that of the reference in float32, plus rounding."""
    cam = case.cams() if cam is None else cam
    target = case.targets() if target is None else target
    values, grad = run(emulation, case, cam, target, has_map=has_map, bits=bits)
    exact = expected(case, cam, target, has_map)
    single = expected(case, cam, target, has_map, torch.float32)
    for got, true, torch_float in zip((values, grad), exact, single, strict=True):
        scale = float(true.abs().max()) if true.numel() else 0
        allowed = 2 * (torch_float - true).abs().max() + 4e-6 * max(scale, 1e-3) if true.numel() else 0
        error = (got.double() - true).abs()
        assert (error <= allowed).all(), (case, float(error.max()), float(allowed))


@pytest.mark.parametrize("size", [(7, 7), (45, 45)])
def test_weight_of_the_gradient(emulation: Emulation, size: tuple[int, int]) -> None:
    case = Case(size=size, window=7)
    values, grad = run(emulation, case, case.cams(), case.targets())
    weighed = run(emulation, dataclasses.replace(case, weight=0.25), case.cams(), case.targets())
    assert torch.equal(weighed[0], values)
    assert torch.equal(weighed[1], 0.25 * grad)


def borders_in_turn(cases: list[tuple[Any, ...]]) -> list[Any]:
    """Every case with one border or another; with the others in the full tier."""
    return [
        (*case, border) if (i + j) % len(BORDERS) == 0 else full(*case, border)
        for i, case in enumerate(cases)
        for j, border in enumerate(BORDERS)
    ]


@pytest.mark.parametrize(("cam", "size", "window", "border"), borders_in_turn(FEW + MANY))
def test_sizes_and_borders(
    emulation: Emulation, cam: tuple[int, int], size: tuple[int, int], window: int, border: str
) -> None:
    check(emulation, Case(cam, size, window, border))


@pytest.mark.parametrize("border", BORDERS)
def test_many_cells(emulation: Emulation, border: str) -> None:
    """A CAM as large as the loss, and nearly so; the longest window."""
    check(emulation, Case((40, 35), (40, 35), 7, border, images=1))
    check(emulation, Case((33, 31), (40, 35), 33, border, images=1))


def blob(images: int, size: tuple[int, int]) -> Tensor:
    """Bytes of the loss's size: 0 but for a part of each image, so that most tiles hold one value."""
    target = torch.zeros(images, *size, dtype=torch.uint8)
    target[:, size[0] // 2 :, : size[1] // 3] = 255
    target[0, :4] = 255
    return target


# Tiles of one value beside mixed ones; sides that are whole tiles, whole words, and neither.
@pytest.mark.parametrize(
    ("cam", "size", "window", "border"),
    borders_in_turn(
        [((7, 7), (96, 64), 11), ((7, 7), (75, 102), 11), ((5, 4), (70, 76), 7), ((2, 3), (52, 68), 21)]
    ),
)
def test_binary_targets_of_the_size_of_the_loss(
    emulation: Emulation, cam: tuple[int, int], size: tuple[int, int], window: int, border: str
) -> None:
    case = Case(cam, size, window, border)
    target = blob(case.images, size)
    check(emulation, case, None, target)
    check(emulation, case, None, target > 0, bits=True)
    check(emulation, case, None, 255 - target)


@pytest.mark.parametrize("border", ["reflect", full("valid"), full("zero")])
def test_graded_and_other_targets_of_the_size_of_the_loss(emulation: Emulation, border: str) -> None:
    case = Case((7, 7), (76, 68), 11, border)
    target = blob(case.images, case.size)
    graded = target.clone()
    graded[1, :, 40:] = 7
    graded[1, 60:, 50:] = torch.arange(18, dtype=torch.uint8)
    check(emulation, case, None, graded)
    for dtype in DTYPES:
        check(emulation, case, None, (graded / 255).to(dtype))
    wide = torch.zeros(2, 76, 96, dtype=torch.uint8)
    wide[..., 12:80] = target
    check(emulation, case, None, wide[..., 12:80])  # words, in longer rows
    check(emulation, case, None, wide[..., 13:81])  # not where words start
    check(emulation, case, None, target.transpose(1, 2).contiguous().transpose(1, 2))
    check(emulation, dataclasses.replace(case, kind="mse"), None, target)
    other = dataclasses.replace(case, target=(152, 100))
    check(emulation, other, None, blob(2, other.target))


def test_plateaus_under_tiles_of_one_value(emulation: Emulation) -> None:
    """|x - y| has no slope at ties of both extremes, of which a flat tile may have many."""
    case = Case((4, 4), (64, 96), 11, images=3)
    cam = case.cams()
    cam[0] = cam[0].relu()
    cam[1] = cam[1].clamp(-0.3, 0.3)
    cam[2] = 0
    cam[2, 1, 1] = 1
    for target in (blob(3, case.size), 255 - blob(3, case.size)):
        check(emulation, case, cam, target)


def test_enlargements_with_and_without_tables(emulation: Emulation) -> None:
    """From a cell a pixel to a cell for many: a tile touches many cells, or few."""
    for cells in (3, 8, 10, 12, 16, 24, 64):
        case = Case((cells, 5), (64, 50), 11, "zero", images=1)
        check(emulation, case, None, blob(1, case.size))


@pytest.mark.parametrize(("cam", "size", "window"), [FEW[0], full(*FEW[3]), MANY[0]])
def test_mse(emulation: Emulation, cam: tuple[int, int], size: tuple[int, int], window: int) -> None:
    for border in BORDERS:
        check(emulation, Case(cam, size, window, border, "mse"))


@pytest.mark.parametrize(
    ("size", "window", "target_size"),  # rows of whole 16-byte packs, and not
    [
        ((7, 7), 7, (64, 96)),
        ((45, 33), 11, (50, 61)),
        full((7, 7), 7, (50, 61)),
        full((45, 33), 11, (64, 96)),
    ],
)
def test_every_type(
    emulation: Emulation, size: tuple[int, int], window: int, target_size: tuple[int, int]
) -> None:
    case = Case((7, 7), size, window, target=target_size)
    target = case.targets()
    for dtype in DTYPES:
        check(emulation, case, case.cams().to(dtype), target)
        check(emulation, case, None, (target / 255).to(dtype))
    check(emulation, case, None, target > 128)
    check(emulation, case, None, target > 128, bits=True)


def test_strides_and_offsets_of_the_target(emulation: Emulation) -> None:
    case = Case(target=(64, 96))
    target = case.targets()
    check(emulation, case, None, target[:, ::2, 1::3])
    check(emulation, case, None, target.transpose(1, 2))
    check(emulation, case, None, target[:, 3:, 16:80])  # packs, in longer rows
    check(emulation, case, None, target[:, :, :93])  # aligned, but the last pack of the last row is cut
    check(emulation, case, None, target[:1].expand(2, -1, -1))


def test_a_target_smaller_than_the_loss(emulation: Emulation) -> None:
    for size in ((24, 24), (40, 40)):
        check(emulation, Case((7, 7), size, 11, target=(10, 13)))


@pytest.mark.parametrize("size", [(7, 7), (35, 36)])
def test_images_without_a_map(emulation: Emulation, size: tuple[int, int]) -> None:
    case = Case((7, 7), size, 7, images=5, most_blocks=2)
    cam, target = case.cams(), case.targets()
    target[1] = 255
    target[2] = 0
    has_map = torch.tensor([True, True, True, False, True])
    check(emulation, case, cam, target, has_map=has_map)
    cam[3] = torch.nan  # of which autograd makes 0 * NaN in the reference
    values, grad = run(emulation, case, cam, target, has_map=has_map)
    assert values[1:4].tolist() == [0, 0, 0]
    assert not grad[1:4].any()
    assert (values[[0, 4]] > 0).all()
    assert grad[[0, 4]].any(-1).any(-1).all()


@pytest.mark.parametrize(
    ("size", "kind"),  # weights of the enlargement that are exact: so are ties
    [((7, 7), "mse"), ((56, 28), "ssim_l1"), full((7, 7), "ssim_l1"), full((56, 28), "mse")],
)
def test_flat_cams_plateaus_and_one_hot_pixel(emulation: Emulation, size: tuple[int, int], kind: str) -> None:
    case = Case((7, 7), size, 7, kind=kind, images=5)
    cam = case.cams()
    cam[0] = 3
    cam[1] = 0
    cam[2] = 0
    cam[2, 3, 4] = 5
    cam[3] = cam[3].relu()
    cam[4] = cam[4].clamp(-0.5, 0.5)
    target = case.targets()
    target[1] = target[0]
    check(emulation, case, cam, target)
    values, grad = run(emulation, case, cam, target)
    assert values[0] == values[1]
    assert not grad[:2].any()


@pytest.mark.parametrize("size", [(7, 7), (35, 36)])
def test_a_nan_stays_in_its_image(emulation: Emulation, size: tuple[int, int]) -> None:
    case = Case((7, 7), size, 7)
    cam = case.cams()
    cam[1, 2, 2] = torch.nan
    values, grad = run(emulation, case, cam, case.targets())
    assert values.isnan().tolist() == [False, True]
    assert grad[0].isfinite().all()
    assert grad[1].isnan().all()


@pytest.mark.parametrize("size", [(7, 7), (35, 36)])
def test_value_alone_few_blocks_and_any_order_of_threads_give_the_same_bits(
    emulation: Emulation, size: tuple[int, int]
) -> None:
    case = Case((7, 7), size, 7, images=3)
    cam, target = case.cams(), case.targets()
    values, grad = run(emulation, case, cam, target)
    alone, _ = run(emulation, case, cam, target, grad=False)
    assert torch.equal(alone, values)
    for seed, blocks in ((1, 1), (2, 2)):
        other = dataclasses.replace(case, seed=seed, most_blocks=blocks)
        other_values, other_grad = run(emulation, other, cam, target)
        assert torch.equal(other_values, values)
        assert torch.equal(other_grad, grad)


def test_batch_of_none(emulation: Emulation) -> None:
    check(emulation, Case(images=0))
    check(emulation, Case((7, 7), (40, 40), 11, images=0))


@pytest.mark.parametrize(
    ("x", "y", "loss"),
    [
        ("ramp", "ramp", 0.0),
        ("ramp", "box", 1.49693804),
        ("ramp", "pmar", 2.48950807),
        ("box", "xob", 2.99626959),
    ],
)
def test_known_values(emulation: Emulation, x: str, y: str, loss: float) -> None:
    ramp = torch.arange(49).view(7, 7) / 48
    box = torch.zeros(7, 7)
    box[2:5, 2:5] = 1
    maps = {"ramp": ramp, "pmar": 1 - ramp, "box": box, "xob": 1 - box}
    values, _ = run(emulation, Case(), maps[x][None], maps[y][None])
    assert float(values) == pytest.approx(loss, abs=2e-6)


@pytest.mark.parametrize(("side", "size"), [(80, 32), (112, 28), (128, 64), (256, 64)])
def test_a_cam_that_would_shrink_is_refused(emulation_program: Path, side: int, size: int) -> None:
    """Shared memory has room for fewer cells than pixels. The op takes its reference instead."""
    case = Case((side, side), (size, size), images=1)
    cam, target = case.cams(), case.targets()
    with Emulation(emulation_program) as emulation, pytest.raises(AssertionError, match="invalid argument"):
        run(emulation, case, cam, target)
