"""sal_fast.ops.saliency_loss: check values, the definition step by step, float64 at each precision."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from precision import HALVES, assert_as_good_as_torch, assert_replays, full, name_of, on_gpu, run_python
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from sal_fast import ops
from sal_fast.ops import BitMask, _launch
from sal_fast.ops.saliency_loss import KINDS, reference, registration
from sal_fast.ops.ssim import BORDERS

INDEX = torch.arange(7, dtype=torch.float64)
RAMP = (7 * INDEX[:, None] + INDEX) / 48
BOX = torch.zeros(7, 7, dtype=torch.float64)
BOX[2:5, 2:5] = 1
ZEROS = torch.zeros(7, 7, dtype=torch.float64)

borders = pytest.mark.parametrize("border", BORDERS)
kinds = pytest.mark.parametrize("kind", KINDS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=name_of)


def random_cams(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def boxes(batch: int, height: int, width: int) -> Tensor:
    """Bool masks, another box in each."""
    masks = torch.zeros(batch, height, width, dtype=torch.bool)
    for i in range(batch):
        top, left = (2 * i + 1) % (height // 2), (3 * i + 2) % (width // 2)
        masks[i, top : top + height // 3 + 1, left : left + width // 2] = True
    return masks


def with_gradient(cam: Tensor, target: Tensor | BitMask, **options) -> tuple[Tensor, Tensor]:
    """Per-image losses and the gradient of their weighted sum, through the public function."""
    cam = cam.detach().clone().requires_grad_()
    losses = ops.saliency_loss(cam, target, reduction="none", **options)
    upstream = torch.linspace(-1, 2, len(cam), device=cam.device, dtype=losses.dtype)
    (losses * upstream).sum().backward()
    assert cam.grad is not None
    return losses.detach(), cam.grad


def torchs(
    cam: Tensor,
    target: Tensor,
    *,
    has_map: Tensor | None = None,
    map_size: int | None = None,
    window: int | None = None,
    border: str = "valid",
    kind: str = "ssim_l1",
) -> tuple[Tensor, Tensor]:
    """The same in plain torch, at the precision of the CAM."""
    cam = cam.detach().clone().requires_grad_()
    size = (map_size, map_size) if map_size else (cam.shape[1], cam.shape[2])
    window = window or min(11 if map_size else 7, (min(size) - 1) // 2 * 2 + 1)
    losses = reference.saliency_loss(cam, target, has_map, size, window, border, kind)
    upstream = torch.linspace(-1, 2, len(cam), device=cam.device, dtype=losses.dtype)
    return losses.detach(), torch.autograd.grad((losses * upstream).sum(), cam)[0]


def check(cam: Tensor, target: Tensor, *, grad_eps: float = 2e-6, **options) -> None:
    ours = with_gradient(cam, target, **options)
    assert ours[0].dtype == torch.float32
    assert ours[1].dtype == cam.dtype
    exact = torchs(cam.double(), target, **options)
    same = torchs(cam.float(), target, **options)
    # The gradient of a half type is rounded to it once.
    epsilons = (1e-6, grad_eps if cam.dtype == torch.float32 else torch.finfo(cam.dtype).eps)
    for mine, theirs, float64, eps in zip(ours, same, exact, epsilons, strict=True):
        assert_as_good_as_torch(mine, theirs, float64, eps)


# The definition --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=name_of)
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
def test_check_values(x: Tensor, y: Tensor, similarity: float, l1: float, dtype: torch.dtype) -> None:
    """The table of docs/method.md."""
    x, y = x.to(dtype), y.to(dtype)
    tight = dtype == torch.float64
    got = ops.ssim(x[None, None], y[None, None], window=7)
    assert float(got) == pytest.approx(similarity, abs=5e-9 if tight else 5e-7)
    loss = ops.saliency_loss(x[None], y[None])
    assert float(loss) == pytest.approx(1 - similarity + l1, abs=1e-8 if tight else 1e-6)


def test_target_is_averaged_over_areas() -> None:
    cam = random_cams(1, 7, 7, seed=5).double()
    target = torch.rand(1, 21, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    blocks = target.reshape(1, 7, 3, 7, 3).mean((2, 4))
    torch.testing.assert_close(ops.saliency_loss(cam, target), ops.saliency_loss(cam, blocks))
    torch.testing.assert_close(
        ops.saliency_loss(cam.float(), target), ops.saliency_loss(cam, blocks), check_dtype=False
    )


def test_map_size_enlarges_the_cam_bilinearly() -> None:
    cam = random_cams(1, 7, 7, seed=7).double()
    target = torch.rand(1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    x = ops.minmax_normalize(F.interpolate(cam[None], (28, 28), mode="bilinear")[0])
    y = ops.minmax_normalize(target)
    expected = 1 - ops.ssim(x[None], y[None], window=11) + (x - y).abs().mean()
    torch.testing.assert_close(ops.saliency_loss(cam, target, map_size=28), expected)
    torch.testing.assert_close(
        ops.saliency_loss(cam.float(), target, map_size=28), expected, check_dtype=False
    )


@pytest.mark.parametrize("size", [9, 12, 23])
def test_plateaus_at_an_extreme_share_its_gradient(size: int) -> None:
    """Equal columns stay equal when they are enlarged, whatever the weights are; the CAM's ends are exact."""
    column = torch.tensor([0.34313363, -0.66933310, -0.15720536, 0.61874176])[None, :, None]
    target = torch.rand(1, 30, 30, generator=torch.Generator().manual_seed(2)) > 0.6
    check(column.expand(1, 4, 6).contiguous(), target, map_size=size)
    check(column.flip(1).expand(1, 4, 6).contiguous(), target, map_size=size)


@kinds
@pytest.mark.parametrize("map_size", [None, 9])
def test_gradcheck(kind: str, map_size: int | None) -> None:
    cam = random_cams(3, 5, 6, seed=3).double().requires_grad_()
    target = torch.rand(3, 11, 13, generator=torch.Generator().manual_seed(3)) > 0.6
    assert torch.autograd.gradcheck(
        lambda m: ops.saliency_loss(m, target, kind=kind, map_size=map_size, reduction="none"), (cam,)
    )


@pytest.mark.parametrize("map_size", [None, 32])
def test_gradient_against_finite_differences(map_size: int | None, device: torch.device) -> None:
    """Of the kernel itself, with differences of its own float32 values."""
    cam, target = random_cams(1, 5, 6, seed=11).to(device), boxes(1, 16, 18).to(device)
    _, grad = with_gradient(torch.cat([cam, cam]), torch.cat([target, target]), map_size=map_size)
    step = 1e-2
    moves = step * torch.eye(30, device=device).view(30, 5, 6)
    many = target.expand(30, -1, -1)
    up, down = (
        ops.saliency_loss(cam + sign * moves, many, map_size=map_size, reduction="none") for sign in (1, -1)
    )
    slopes = ((up - down) / (2 * step)).view(5, 6)
    torch.testing.assert_close(2 * slopes, grad[1], rtol=0.05, atol=0.02 * float(grad[1].abs().max()))


# Every configuration, at each precision --------------------------------------------------------------------


@kinds
@dtypes
@pytest.mark.parametrize(
    ("cam_shape", "map_size", "target_shape"),
    [
        ((7, 7), None, (224, 224)),
        ((7, 7), None, (7, 7)),
        ((7, 12), None, (61, 100)),
        ((3, 4), None, (30, 30)),
        ((14, 14), None, (33, 47)),
        ((40, 33), None, (80, 70)),  # beyond the lanes of the CPU's small sizes
        ((7, 7), 45, (90, 91)),
        ((7, 12), 33, (50, 33)),
        ((1, 1), 16, (16, 16)),
        ((1, 5), 20, (40, 40)),
        ((12, 12), 8, (16, 16)),  # smaller than the CAM
    ],
    ids=str,
)
def test_sizes(
    cam_shape: tuple[int, int],
    map_size: int | None,
    target_shape: tuple[int, int],
    dtype: torch.dtype,
    kind: str,
    device: torch.device,
) -> None:
    cam = random_cams(5, *cam_shape).to(device, dtype)
    options = {"map_size": map_size, "kind": kind}
    check(cam, boxes(5, *target_shape).to(device), **options)
    graded = torch.rand(5, *target_shape, generator=torch.Generator().manual_seed(1))
    check(cam, graded.to(device), **options)


@pytest.mark.parametrize(("side", "map_size"), [(7, 224), (7, 225), (10, 299)])
def test_full_sizes(side: int, map_size: int, device: torch.device) -> None:
    check(random_cams(3, side, side).to(device), boxes(3, map_size, map_size).to(device), map_size=map_size)


@borders
@pytest.mark.parametrize("window", [3, 5, 7, 9, 11])
@pytest.mark.parametrize("map_size", [None, 40])
def test_windows_and_borders(window: int, border: str, map_size: int | None, device: torch.device) -> None:
    cam = random_cams(3, 12, 13, seed=window).to(device)
    check(cam, boxes(3, 50, 61).to(device), window=window, border=border, map_size=map_size)


@pytest.mark.parametrize("map_size", [None, 20], ids=str)
def test_a_window_of_one_pixel_has_no_variances(map_size: int | None, device: torch.device) -> None:
    """Rounding leaves some of them, which must not count: a dark pixel's similarity is steep."""
    cam, target = random_cams(200, 4, 4).to(device), random_cams(200, 4, 4, seed=1).sigmoid().to(device)
    given = {"window": 1, "map_size": map_size, "reduction": "none"}
    exact = ops.saliency_loss(cam.double(), target, **given)
    assert (ops.saliency_loss(cam, target, **given) - exact).abs().max() < 1e-6


def test_a_large_window(device: torch.device) -> None:
    """Above what the CUDA kernels take, too."""
    check(random_cams(2, 9, 9).to(device), boxes(2, 60, 60).to(device), window=41, map_size=60)


@pytest.mark.parametrize(("size", "window"), [(3, 3), (4, 3), (5, 5), (6, 5), (7, 7), (8, 7)])
def test_default_window_is_the_largest_odd_that_fits(size: int, window: int) -> None:
    cam, target = random_cams(2, size, size), torch.rand(2, 32, 32)
    assert torch.equal(ops.saliency_loss(cam, target), ops.saliency_loss(cam, target, window=window))


# Targets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("map_size", [None, 32])
def test_target_type_range_and_packing_do_not_matter(map_size: int | None, device: torch.device) -> None:
    cam, mask = random_cams(3, 7, 7).to(device), boxes(3, 45, 67).to(device)
    losses, grad = with_gradient(cam, mask, map_size=map_size)
    for same in (BitMask.pack(mask), mask.to(torch.uint8)):
        got = with_gradient(cam, same, map_size=map_size)
        assert torch.equal(got[0], losses)
        assert torch.equal(got[1], grad)
    for other in (
        mask.to(torch.uint8) * 255,
        mask.half(),
        mask.bfloat16(),
        mask.double() * 5 - 2,
        0.25 * mask.float(),
    ):
        got = with_gradient(cam, other, map_size=map_size)
        torch.testing.assert_close(got[0], losses, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got[1], grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("map_size", [None, 32])
@pytest.mark.parametrize("kind_of", [torch.uint8, torch.bool, torch.float32, torch.float16], ids=name_of)
def test_target_strides(kind_of: torch.dtype, map_size: int | None, device: torch.device) -> None:
    cam = random_cams(3, 7, 7).to(device)
    target = boxes(3, 44, 50).to(device, kind_of)
    expected = with_gradient(cam, target, map_size=map_size)
    wide = torch.ones(3, 88, 150, device=device, dtype=kind_of)
    wide[:, ::2, 1::3] = target
    for view in (
        wide[:, ::2, 1::3],
        target.transpose(1, 2).contiguous().transpose(1, 2),
        target.flip(0).contiguous().flip(0),
    ):
        assert all(
            torch.equal(a, b)
            for a, b in zip(with_gradient(cam, view, map_size=map_size), expected, strict=True)
        )
    one = target[:1].expand(3, -1, -1)
    got = ops.saliency_loss(cam, one, map_size=map_size, reduction="none")
    assert torch.equal(got[0], expected[0][0])


def test_cam_strides(device: torch.device) -> None:
    cam, target = random_cams(3, 7, 9).to(device), boxes(3, 30, 40).to(device)
    turned = cam.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(ops.saliency_loss(turned, target), ops.saliency_loss(cam, target))


@pytest.mark.parametrize("map_size", [None, 24])
def test_has_map(map_size: int | None, device: torch.device) -> None:
    """Images without a map give 0 and no gradient, whatever stands in their CAM and target."""
    cam, target = random_cams(4, 7, 7).to(device), torch.rand(4, 30, 30, device=device)
    losses, grad = with_gradient(cam, target, map_size=map_size)
    cam[1], target[2] = torch.nan, torch.inf
    has_map = torch.tensor([True, False, False, True], device=device)
    for precision in (torch.float32, torch.float64):
        got, got_grad = with_gradient(cam.to(precision), target, has_map=has_map, map_size=map_size)
        torch.testing.assert_close(got.float(), losses * has_map)
        torch.testing.assert_close(got_grad.float(), grad * has_map[:, None, None], rtol=1e-4, atol=1e-6)
        assert not got_grad[~has_map].any()


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("map_size", [None, 16])
def test_flat_target_counts_as_no_map(level: int, map_size: int | None, device: torch.device) -> None:
    cam = random_cams(2, 4, 4).to(device)
    target = torch.full((2, 16, 16), level, dtype=torch.uint8, device=device)
    target[1, :8] = 1 - level
    for mask in (target, target.bool(), BitMask.pack(target.bool()), target.float() * 0.3):
        losses, grad = with_gradient(cam, mask, map_size=map_size)
        assert losses[0] == 0
        assert losses[1] > 0
        assert not grad[0].any()
        assert grad[1].any()
        assert ops.says_where(mask, (4, 4)).tolist() == [False, True]


def test_a_checkerboard_is_flat_once_reduced(device: torch.device) -> None:
    """It says nothing at the resolution of the CAM."""
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 == 0
    target = board.expand(2, -1, -1).to(device)
    assert ops.saliency_loss(random_cams(2, 4, 4).to(device), target).item() == 0
    assert ops.saliency_loss(random_cams(2, 4, 4).to(device), target, map_size=16).item() > 0


# Difficult maps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("map_size", [None, 32])
@pytest.mark.parametrize("level", [0.0, 0.3, -7.0])
def test_flat_cam_counts_as_zeros(level: float, map_size: int | None, device: torch.device) -> None:
    cam = torch.full((2, 7, 7), level, device=device)
    target = boxes(2, 32, 32).to(device)
    losses, grad = with_gradient(cam, target, map_size=map_size)
    expected = torchs(torch.zeros(2, 7, 7, dtype=torch.float64), target.cpu(), map_size=map_size)[0]
    torch.testing.assert_close(losses.cpu().double(), expected, rtol=1e-5, atol=1e-6)
    assert not grad.any()


@pytest.mark.parametrize("map_size", [None, 32])
@pytest.mark.parametrize(
    "case", ["one hot pixel", "ReLU plateau", "all negative", "two tied peaks", "huge", "tiny"]
)
def test_difficult_cams(case: str, map_size: int | None, device: torch.device) -> None:
    """Ties at the extremes share the gradient, as torch's amin and amax do."""
    cam = random_cams(3, 7, 7, seed=2)
    if case == "one hot pixel":
        cam = torch.zeros(3, 7, 7)
        cam[:, 3, 4] = 5.0
    elif case == "ReLU plateau":
        cam = cam.relu()
    elif case == "all negative":
        cam = -cam.abs() - 1
    elif case == "two tied peaks":
        cam[:, 1, 1] = cam[:, 5, 4] = 10.0
    else:
        cam *= {"huge": 1e30, "tiny": 1e-30}[case]
    # Where both maps are all but flat, the rounding of moments around 0.5, 1.5e-8, counts against C2 = 9e-4.
    check(cam.to(device), boxes(3, 40, 40).to(device), map_size=map_size, grad_eps=3e-5)


@kinds
@pytest.mark.parametrize("map_size", [None, 24])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_in_its_image(
    bad: float, map_size: int | None, kind: str, device: torch.device
) -> None:
    cam, target = random_cams(5, 7, 7).to(device), torch.rand(5, 24, 24, device=device)
    losses, grad = with_gradient(cam, target, map_size=map_size, kind=kind)
    cam[1, 2, 3], target[3, 9, 9] = bad, bad
    got, got_grad = with_gradient(cam, target, map_size=map_size, kind=kind)
    assert got.isnan().tolist() == [False, True, False, True, False]
    assert torch.equal(got[::2], losses[::2])
    assert torch.equal(got_grad[::2], grad[::2])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(batch: int, reduction: str, device: torch.device) -> None:
    cam = random_cams(batch, 7, 7).to(device).requires_grad_()
    target = boxes(batch, 20, 20).to(device)
    for map_size in (None, 16):
        loss = ops.saliency_loss(cam, target, map_size=map_size, reduction=reduction)
        assert loss.shape == ((batch,) if reduction == "none" else ())
        assert loss.numel() == 0 or bool(loss.isfinite().all())
        loss.sum().backward()
    assert cam.grad is not None
    assert cam.grad.shape == cam.shape


def test_reductions(device: torch.device) -> None:
    cam, target = random_cams(4, 7, 7).to(device).requires_grad_(), boxes(4, 20, 20).to(device)
    has_map = torch.tensor([True, True, False, True], device=device)
    each = ops.saliency_loss(cam, target, has_map=has_map, reduction="none")
    total = ops.saliency_loss(cam, target, has_map=has_map, reduction="sum")
    mean = ops.saliency_loss(cam, target, has_map=has_map)
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(mean, each.sum() / 4)  # by B, not by the maps
    grads = [torch.autograd.grad(value, cam)[0] for value in (each.sum(), total, 4 * mean)]
    torch.testing.assert_close(grads[1], grads[0])
    torch.testing.assert_close(grads[2], grads[0])


# The torch operator ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, *map(full, HALVES)], ids=name_of)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
def test_opcheck(dtype: torch.dtype, device: torch.device) -> None:
    for batch, with_grad, reduction in itertools.product((2, 0), (True, False), ("none", "mean")):
        cam = random_cams(batch, 7, 7).to(device, dtype).requires_grad_(with_grad)
        mask = boxes(batch, 20, 45).to(device)
        has_map = torch.ones(batch, dtype=torch.bool, device=device)
        for target, width in ((mask, 45), (BitMask.pack(mask).words, 45)):
            arguments = (
                cam, target, has_map, [width, 12, 12, 7], ["ssim_l1", "valid", reduction], with_grad,
            )  # fmt: skip
            torch.library.opcheck(torch.ops.sal_fast.saliency_loss.default, arguments)


@pytest.mark.parametrize("packed", [True, full(False)])
def test_compile(packed: bool, device: torch.device) -> None:
    def loss(cam: Tensor, target: Tensor | BitMask, has_map: Tensor) -> Tensor:
        return 2 * ops.saliency_loss(cam + 0.1, target, has_map=has_map, map_size=16)

    cam, mask = random_cams(3, 7, 7).to(device), boxes(3, 20, 20).to(device)
    target = BitMask.pack(mask) if packed else mask
    has_map = torch.tensor([True, False, True], device=device)
    a, b = cam.clone().requires_grad_(), cam.clone().requires_grad_()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    loss(a, target, has_map).backward()
    compiled(b, target, has_map).backward()
    torch.testing.assert_close(a.grad, b.grad)


def test_meta() -> None:
    cam = torch.empty(3, 7, 7, device="meta", requires_grad=True)
    losses = ops.saliency_loss(cam, torch.empty(3, 20, 20, device="meta"), reduction="none")
    assert losses.shape == (3,)
    losses.sum().backward()
    assert cam.grad is not None
    assert cam.grad.shape == cam.shape


@dtypes
def test_autocast_changes_nothing(dtype: torch.dtype, device: torch.device) -> None:
    cam, target = random_cams(3, 7, 7).to(device, dtype), boxes(3, 20, 20).to(device)
    outside = with_gradient(cam, target)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = with_gradient(cam, target)
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))


def test_without_gradient(device: torch.device) -> None:
    cam, target = random_cams(3, 7, 7).to(device).requires_grad_(), boxes(3, 20, 20).to(device)
    with_grad = ops.saliency_loss(cam, target, reduction="none")
    with torch.no_grad():
        without = ops.saliency_loss(cam, target, reduction="none")
    assert not without.requires_grad
    assert torch.equal(with_grad, without)


def test_second_derivative_is_refused(device: torch.device) -> None:
    cam = random_cams(2, 7, 7).to(device).requires_grad_()
    loss = ops.saliency_loss(cam, boxes(2, 20, 20).to(device))
    (grad,) = torch.autograd.grad(loss, cam, create_graph=True)
    with pytest.raises(NotImplementedError, match="only first derivatives"):
        grad.sum().backward()


def test_any_number_of_threads_gives_the_same_bits() -> None:
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(
                [
                    *with_gradient(random_cams(37, 7, 7), boxes(37, 20, 20)),
                    *with_gradient(random_cams(5, 7, 7), boxes(5, 60, 60), map_size=50),
                ]
            )
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*results, strict=True))


@on_gpu
@pytest.mark.parametrize("map_size", [None, 90])
def test_replayed_graph_on_a_side_stream(map_size: int | None) -> None:
    cam, target = random_cams(3, 7, 7).cuda().requires_grad_(), boxes(3, 90, 100).cuda()

    def step() -> list[Tensor]:
        loss = ops.saliency_loss(cam, target, map_size=map_size)
        return [loss, *torch.autograd.grad(loss, cam)]

    assert_replays(step, lambda: cam.copy_(random_cams(3, 7, 7, seed=1)))


SCRIPT = """
import torch
from sal_fast import ops
torch.set_num_threads({threads})
generator = torch.Generator().manual_seed(0)
for map_size, kind in ((None, "ssim_l1"), (None, "mse"), (45, "ssim_l1"), (45, "mse")):
    cam = torch.randn(19, 7, 7, generator=generator, requires_grad=True)
    target = torch.rand(19, 50, 47, generator=generator) > 0.7
    target[3] = False
    loss = ops.saliency_loss(cam, target, map_size=map_size, kind=kind)
    loss.backward()
    print(loss.item(), cam.grad.double().norm().item(), (cam.grad * cam).double().abs().sum().item())
"""


def test_every_build_agrees() -> None:
    """Each instruction set, and the reference."""
    expected = [float(number) for number in run_python(SCRIPT.format(threads=1)).split()]
    for environment in (
        {"SAL_FAST_CPU_CAPABILITY": "generic"},
        {"SAL_FAST_CPU_CAPABILITY": "avx2"},
        {"SAL_FAST_NATIVE": "0"},
    ):
        got = [float(number) for number in run_python(SCRIPT.format(threads=2), **environment).split()]
        np.testing.assert_allclose(got, expected, rtol=2e-5)


# Errors ----------------------------------------------------------------------------------------------------

CAM = torch.rand(2, 4, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ops.saliency_loss(CAM, torch.rand(2, 8, 8, device="meta")),
            ValueError,
            "expected tensors on one device, got cam on cpu, target on meta",
        ),
        (
            lambda: ops.saliency_loss(CAM[0], torch.rand(2, 8, 8)),
            ValueError,
            r"cam must have shape \[\*, \*, \*\]",
        ),
        (lambda: ops.saliency_loss(CAM, torch.rand(3, 8, 8)), ValueError, r"\[2, \*, \*\], got \[3, 8, 8\]"),
        (lambda: ops.saliency_loss(CAM, torch.rand(2, 8, 8), window=5), ValueError, "side 4, got 5"),
        (lambda: ops.saliency_loss(CAM, torch.rand(2, 8, 8), window=2), ValueError, "odd .* got 2"),
        (lambda: ops.saliency_loss(CAM, torch.rand(2, 8, 8), kind="l2"), ValueError, "ssim_l1, mse"),
        (
            lambda: ops.saliency_loss(CAM, torch.rand(2, 8, 8), border="same"),
            ValueError,
            "valid, zero, reflect",
        ),
        (lambda: ops.saliency_loss(CAM, torch.rand(2, 8, 8), reduction="max"), ValueError, "none, mean, sum"),
        (lambda: ops.saliency_loss(CAM, torch.rand(2, 8, 8), map_size=0), ValueError, "map_size .* got 0"),
        (
            lambda: ops.saliency_loss(CAM, torch.rand(2, 0, 8)),
            ValueError,
            r"at least one pixel, got \[2, 0, 8\]",
        ),
        (
            lambda: ops.saliency_loss(CAM[:, :0], torch.rand(2, 8, 8)),
            ValueError,
            r"at least one pixel, got \[2, 0, 4\]",
        ),
        (lambda: ops.saliency_loss(CAM.long(), torch.rand(2, 8, 8)), TypeError, "floating"),
        (
            lambda: ops.saliency_loss(CAM, torch.zeros(2, 8, 8).long()),
            TypeError,
            "bool, uint8 or floating, got torch.int64",
        ),
        (lambda: ops.saliency_loss(CAM, [1]), TypeError, "a tensor or a BitMask, got list"),
        (
            lambda: ops.saliency_loss(CAM, torch.rand(2, 8, 8), has_map=torch.ones(2)),
            TypeError,
            "has_map must be bool, got torch.float32",
        ),
        (
            lambda: ops.saliency_loss(CAM, torch.rand(2, 8, 8), has_map=torch.ones(3).bool()),
            ValueError,
            r"has_map must have shape \[2\], got \[3\]",
        ),
    ],
)
def test_errors_say_expected_and_got(
    call: Callable[[], Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_cam_larger_than_the_loss_takes_the_reference_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_launch._CORES, "cuda", object())
    monkeypatch.setattr(_launch, "_runs_on", lambda gpu: True)
    with FakeTensorMode():
        target = torch.empty(1, 32, 32, device="cuda")
        taken = [
            registration.takes(torch.empty(1, *size, device="cuda"), target, None, (32, 32, 32, 7))
            for size in ((32, 32), (7, 7), (33, 7), (7, 80))
        ]
    assert taken == [True, True, False, False]
