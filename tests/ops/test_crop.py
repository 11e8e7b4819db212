"""sal_fast.ops.crop_images against torch's grid_sample, and crop_masks against exact fractions."""

from __future__ import annotations

import json
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from precision import HALVES, assert_replays, name_of, on_gpu, run_python
from torch import Tensor

from sal_fast import ops
from sal_fast.ops import BitMask
from sal_fast.ops.crop import reference

DTYPES = (torch.float32, *HALVES)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
STORED = 6
NORMALISED = torch.tensor([[1 / 58, 0, 0, -2.1], [0, 1 / 57, 0, -2.0], [0, 0, 1 / 57.5, -1.8]])
GREY_LEVELS = torch.eye(3, 4)
ROWS = torch.tensor([4, 0, 4, 5, 1])
BOXES = torch.tensor(
    [
        [0.0, 0.0, 1.0, 1.0],
        [0.13, 0.22, 0.91, 0.83],
        [0.95, 0.1, 0.2, 0.7],  # mirrored
        [-0.3, 1.2, 1.4, -0.1],  # beyond the edges, upside down
        [0.4, 0.4, 0.4, 0.4],  # of no size
    ]
)


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stored_images(height: int, width: int, count: int = STORED) -> Tensor:
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=draws(height))


def colors(count: int) -> Tensor:
    return torch.randn(count, 3, 4, generator=draws(count)) / 100


def by_grid_sample(images: Tensor, rows: Tensor, box: Tensor, color: Tensor, size: tuple[int, int]) -> Tensor:
    """In float64; an affine grid over the box, clamped at the border."""
    left, top, right, bottom = box.double().unbind(1)
    zero = torch.zeros_like(left)
    theta = torch.stack([right - left, zero, right + left - 1, zero, bottom - top, bottom + top - 1], 1).view(
        -1, 2, 3
    )
    chosen = images[rows].movedim(3, 1).double()
    grid = F.affine_grid(theta, [len(rows), 3, *size], align_corners=False)
    pixels = F.grid_sample(chosen, grid, mode="bilinear", padding_mode="border", align_corners=False)
    color = color.double().expand(len(rows), 3, 4)
    return torch.einsum("bck,bkyx->bcyx", color[..., :3], pixels) + color[..., 3, None, None]


SIZES = [
    ((1, 1), (1, 1)),
    ((1, 1), (3, 5)),
    ((3, 5), (1, 1)),
    ((3, 5), (17, 40)),
    ((40, 41), (31, 223)),
    ((70, 150), (9, 16)),  # neighbours of a vector of pixels far apart
    ((33, 224), (32, 224)),
    ((20, 48), (20, 48)),
]
sizes = pytest.mark.parametrize(("stored", "size"), SIZES)


@sizes
def test_reference_against_grid_sample(stored: tuple[int, int], size: tuple[int, int]) -> None:
    images, color = stored_images(*stored), colors(len(ROWS)).double()
    got = reference.crop_images(images, ROWS, BOXES, color, size)
    torch.testing.assert_close(got, by_grid_sample(images, ROWS, BOXES, color, size), rtol=0, atol=1e-6)


@sizes
@dtypes
def test_values(
    stored: tuple[int, int], size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> None:
    images = stored_images(*stored)
    for color in (GREY_LEVELS, NORMALISED, colors(len(ROWS))):
        exact = by_grid_sample(images, ROWS, BOXES, color, size)
        got = ops.crop_images(
            images.to(device),
            ROWS.to(device),
            BOXES.to(device),
            size=size,
            color=color.to(device),
            dtype=dtype,
        )
        assert got.dtype == dtype
        assert got.shape == exact.shape
        assert got.is_contiguous()
        # Two thousandths of a grey level, and a rounding.
        tolerance = 2e-3 * float(color[..., :3].abs().sum(-1).max())
        eps = 0 if dtype == torch.float32 else torch.finfo(dtype).eps
        torch.testing.assert_close(got.double().cpu(), exact, rtol=eps, atol=tolerance)


def test_the_whole_of_all_images(device: torch.device) -> None:
    for height, width in ((1, 1), (3, 5), (17, 64), (30, 31)):
        images = stored_images(height, width).to(device)
        for color in (NORMALISED, colors(STORED)):
            got = ops.crop_images(images, size=(height, width), color=color.to(device))
            exact = torch.einsum(
                "bck,byxk->bcyx", color.expand(STORED, 3, 4)[..., :3].double(), images.cpu().double()
            )
            exact = exact + color.expand(STORED, 3, 4)[..., 3, None, None]
            torch.testing.assert_close(got.double().cpu(), exact, rtol=0, atol=1e-5)


@dtypes
def test_a_copy_is_exact_however_it_is_asked_for(dtype: torch.dtype, device: torch.device) -> None:
    """Also past the caches, which is how large results are written."""
    images = stored_images(64, 64, 200).to(device)
    color = NORMALISED.to(device)
    levels = ops.crop_images(images, size=64, color=GREY_LEVELS.to(device), dtype=dtype)
    assert torch.equal(levels, images.movedim(3, 1).to(dtype))
    whole = ops.crop_images(images, size=64, color=color, dtype=dtype)
    few = torch.cat([ops.crop_images(part, size=64, color=color, dtype=dtype) for part in images.split(50)])
    assert torch.equal(whole, few)
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device)
    for flips in ((), (3,), (2,), (2, 3)):
        edges = box.clone()
        if 3 in flips:
            edges[:, [0, 2]] = edges[:, [2, 0]]
        if 2 in flips:
            edges[:, [1, 3]] = edges[:, [3, 1]]
        got = ops.crop_images(images, None, edges.expand(200, 4), size=64, color=color, dtype=dtype)
        assert torch.equal(got, whole.flip(flips))


def test_rows(device: torch.device) -> None:
    images, color = stored_images(9, 20).to(device), NORMALISED.to(device)
    everything = ops.crop_images(images, size=(9, 20), color=color)
    rows = torch.tensor([5, 5, 0, 3, 1, 0, 2], device=device)
    for given in (rows, torch.stack([rows, rows], 1)[:, 0], rows[:0]):
        assert torch.equal(ops.crop_images(images, given, size=(9, 20), color=color), everything[given])
    masks = images[..., 0]
    assert torch.equal(ops.crop_masks(masks, rows, size=(9, 20)), masks[rows])


def test_strides(device: torch.device) -> None:
    images, color = stored_images(40, 50).to(device), NORMALISED.to(device)
    masks = images[..., 0]
    boxes, rows = BOXES.to(device), ROWS.to(device)
    views = {
        "rows": (slice(None), slice(3, 40, 2)),
        "columns": (slice(None), slice(None), slice(5, 47)),
        "every other column": (slice(None), slice(None), slice(None, None, 2)),
    }
    for view in views.values():
        for box in (boxes, None):
            size = (18, 33) if box is not None else tuple(images[view].shape[1:3])
            got = ops.crop_images(images[view], rows, box, size=size, color=color)
            assert torch.equal(
                got, ops.crop_images(images[view].contiguous(), rows, box, size=size, color=color)
            )
            got = ops.crop_masks(masks[view], rows, box, size=size)
            assert torch.equal(got, ops.crop_masks(masks[view].contiguous(), rows, box, size=size))
    planes = images.movedim(3, 1).contiguous().movedim(1, 3)
    expected = ops.crop_images(images, rows, boxes, size=20, color=color)
    assert torch.equal(ops.crop_images(planes, rows, boxes, size=20, color=color), expected)
    wide = torch.cat([boxes, boxes], 1)[:, :4]
    assert torch.equal(ops.crop_images(images, rows, wide, size=20, color=color.T.contiguous().T), expected)


def test_nothing(device: torch.device) -> None:
    rows, box = torch.empty(0, dtype=torch.int64, device=device), torch.empty(0, 4, device=device)
    color = NORMALISED.to(device)
    for images in (stored_images(4, 5), stored_images(4, 5, 0), torch.empty(0, 0, 5, 3, dtype=torch.uint8)):
        got = ops.crop_images(images.to(device), rows, box, size=(2, 3), color=color)
        assert got.shape == (0, 3, 2, 3)
        got = ops.crop_masks(images[..., 0].to(device), rows, box, size=(2, 3))
        assert got.shape == (0, 2, 3)


def test_out(device: torch.device) -> None:
    images, color = stored_images(20, 20).to(device), NORMALISED.to(device)
    for dtype in DTYPES:
        out = torch.full((STORED, 3, 8, 9), torch.nan, dtype=dtype, device=device)
        version = out._version
        got = ops.crop_images(images, size=(8, 9), color=color, dtype=dtype, out=out)
        assert got is out
        assert out._version > version
        assert torch.equal(out, ops.crop_images(images, size=(8, 9), color=color, dtype=dtype))
    with pytest.raises(ValueError, match="out must be contiguous"):
        ops.crop_images(images, size=(9, 8), color=color, out=torch.empty_like(out).float().transpose(2, 3))


# Masks -----------------------------------------------------------------------------------------------------


def nearest_by_fractions(low: float, high: float, pixels: int, out: int) -> np.ndarray:
    low, high = Fraction(low), Fraction(high)
    at = [floor((low + (x + Fraction(1, 2)) * (high - low) / out) * pixels) for x in range(out)]
    return np.clip(np.array(at), 0, pixels - 1)


@sizes
def test_values_of_masks(stored: tuple[int, int], size: tuple[int, int], device: torch.device) -> None:
    levels = stored_images(*stored)[..., 0]
    binary = levels > 120
    halves = torch.tensor(
        [[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 1.0, 0.0], [0.75, -0.25, 0.125, 1.5]]
    )  # many edges
    for rows, boxes in ((ROWS, BOXES), (ROWS[:3], halves)):
        expected = np.zeros((len(rows), *size), dtype=np.uint8)
        for b, (row, (left, top, right, bottom)) in enumerate(
            zip(rows.tolist(), boxes.tolist(), strict=True)
        ):
            y = nearest_by_fractions(top, bottom, stored[0], size[0])
            x = nearest_by_fractions(left, right, stored[1], size[1])
            expected[b] = levels[row].numpy()[y[:, None], x]
        places = (rows.to(device), boxes.to(device))
        got = ops.crop_masks(levels.to(device), *places, size=size)
        assert got.dtype == torch.uint8
        np.testing.assert_array_equal(got.cpu(), expected)
        np.testing.assert_array_equal(reference.crop_masks(levels, rows, boxes, size), expected)
        for masks in (binary.to(device), BitMask.pack(binary).to(device)):
            got = ops.crop_masks(masks, *places, size=size)
            assert got.dtype == torch.bool
            np.testing.assert_array_equal(got.cpu(), expected > 120)


def test_masks_that_are_copied(device: torch.device) -> None:
    for height, width in ((1, 1), (5, 31), (4, 64), (7, 100)):
        masks = stored_images(height, width)[..., 0].to(device)
        packed = BitMask.pack(masks > 100)
        words = packed.words.clone()
        if width % 32:
            words[..., -1] |= -1 << width % 32  # bits that are no pixels
        for rows in (None, ROWS.to(device)):
            chosen = masks if rows is None else masks[rows]
            assert torch.equal(ops.crop_masks(masks, rows, size=(height, width)), chosen)
            for bits in (packed, BitMask(words, width)):
                assert torch.equal(ops.crop_masks(bits, rows, size=(height, width)), chosen > 100)


# Bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_boxes_that_are_not_finite(number: float, device: torch.device) -> None:
    images = stored_images(30, 40).to(device)
    for place in range(4):
        box = BOXES.clone()
        box[2, place] = number
        for dtype in DTYPES:
            got = ops.crop_images(
                images, ROWS.to(device), box.to(device), size=20, color=NORMALISED.to(device), dtype=dtype
            )
            assert got.isnan().flatten(1).all(1).tolist() == [False, False, True, False, False]
            assert got.isnan().flatten(1).any(1).tolist() == [False, False, True, False, False]
        masks = ops.crop_masks(images[..., 0] | 1, ROWS.to(device), box.to(device), size=20)
        assert (masks == 0).flatten(1).all(1).tolist() == [False, False, True, False, False]


def test_boxes_far_away(device: torch.device) -> None:
    images = stored_images(30, 40).to(device)
    box = torch.tensor([[1e30, -1e30, 2e30, -3e38], [-3e38, 3e38, 3e38, -3e38], [5e5, -7.0, 5e5, 1e9]]).to(
        device
    )
    got = ops.crop_images(images[:3], None, box, size=(7, 40), color=GREY_LEVELS.to(device))
    assert torch.equal(got[0], images[0, 0, -1, :, None, None].expand(3, 7, 40).float())
    expected = reference.crop_images(images[:3].cpu(), None, box.cpu(), GREY_LEVELS.double(), (7, 40))
    torch.testing.assert_close(got.double().cpu(), expected, rtol=0, atol=2e-3)
    assert torch.equal(
        ops.crop_masks(images[:3, ..., 0], None, box, size=(7, 40)).cpu(),
        reference.crop_masks(images[:3, ..., 0].cpu(), None, box.cpu(), (7, 40)),
    )


def test_colors_that_are_not_finite(device: torch.device) -> None:
    images = stored_images(30, 40).to(device)
    color = NORMALISED.repeat(STORED, 1, 1)
    color[1, 2, 0], color[3, 0, 3] = torch.nan, torch.inf
    for size in ((30, 40), (20, 20)):
        got = ops.crop_images(images, size=size, color=color.to(device))
        bad = ~got.isfinite().flatten(2).all(2)
        assert bad.nonzero().tolist() == [[1, 2], [3, 0]]


@pytest.mark.parametrize("row", [-1, STORED, 1 << 62, -(1 << 63)])
def test_rows_out_of_range(row: int, device: torch.device) -> None:
    images, color = stored_images(12, 13).to(device), NORMALISED.to(device)
    rows = torch.tensor([1, row, 2], device=device)
    packed = BitMask.pack(torch.ones(STORED, 12, 13, dtype=torch.bool, device=device))
    if device.type == "cpu":
        with pytest.raises(ValueError, match=rf"rows must lie in 0\.\.{STORED - 1}, got"):
            ops.crop_images(images, rows, size=12, color=color)
        with pytest.raises(ValueError, match="crop_masks: rows must lie in"):
            ops.crop_masks(packed, rows, size=12)
    # The operators themselves look at no values.
    for box in (None, BOXES[:3].to(device)):
        for size in ([12, 13], [5, 6]):
            got = torch.ops.sal_fast.crop_images(images, rows, box, color, size, torch.float32)
            assert got.isnan().flatten(1).all(1).tolist() == [False, True, False]
            got = torch.ops.sal_fast.crop_masks(packed.words, 13, rows, box, size)
            assert got.flatten(1).any(1).tolist() == [True, False, True]
            assert not reference.crop_masks(packed.unpack(), rows, box, size)[1].any()
            got = reference.crop_images(images, rows, box, color, size)
            assert got.isnan().flatten(1).all(1).tolist() == [False, True, False]


IMAGES = torch.zeros(2, 4, 5, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"images": [1]}, TypeError, "images must be a tensor, got list"),
        ({"images": IMAGES.float()}, TypeError, "images must be uint8, got torch.float32"),
        ({"images": IMAGES[0]}, ValueError, r"images must have shape \[\*, \*, \*, 3\], got \[4, 5, 3\]"),
        ({"images": IMAGES.movedim(3, 1)}, ValueError, r"\[\*, \*, \*, 3\], got \[2, 3, 4, 5\]"),
        ({"images": IMAGES[:, :0]}, ValueError, r"sides of 1\.\.16384, got \[2, 0, 5, 3\]"),
        ({"images": IMAGES[:0]}, ValueError, r"an image or more.*got \[0, 4, 5, 3\]"),
        ({"rows": torch.zeros(2)}, TypeError, "rows must be int64, got torch.float32"),
        ({"rows": torch.zeros(2, 1, dtype=torch.int64)}, ValueError, r"rows must have shape \[\*\]"),
        ({"box": torch.zeros(2, 4).double()}, TypeError, "box must be float32, got torch.float64"),
        ({"box": torch.zeros(3, 4)}, ValueError, r"box must have shape \[2, 4\], got \[3, 4\]"),
        ({"size": (3, 4, 5)}, TypeError, "size must be an int or two"),
        ({"size": (3, 4.0)}, TypeError, "size must be an int or two"),
        ({"size": 0}, ValueError, r"size must lie in 1\.\.16384, got 0"),
        ({"size": (3, 16385)}, ValueError, r"size must lie in 1\.\.16384, got \(3, 16385\)"),
        ({"color": NORMALISED.double()}, TypeError, "color must be float32"),
        ({"color": NORMALISED[:2]}, ValueError, r"color must have shape \[3, 4\], got \[2, 4\]"),
        ({"color": NORMALISED.expand(3, 3, 4)}, ValueError, r"shape \[2, 3, 4\], got \[3, 3, 4\]"),
        ({"dtype": torch.float64}, TypeError, "float32, float16 or bfloat16, got torch.float64"),
        ({"dtype": "half"}, TypeError, "float32, float16 or bfloat16, got half"),
        ({"out": torch.empty(2, 3, 2, 2).half()}, TypeError, "out must be float32, got torch.float16"),
        ({"out": torch.empty(2, 3, 2, 3)}, ValueError, r"out must have shape \[2, 3, 2, 2\]"),
        ({"color": NORMALISED.to("meta")}, ValueError, "expected tensors on one device"),
    ],
)
def test_errors(given: dict[str, object], error: type[Exception], message: str) -> None:
    arguments = {"images": IMAGES, "rows": torch.tensor([1, 0]), "size": 2, "color": NORMALISED} | given
    with pytest.raises(error, match="crop_images: .*" + message):
        ops.crop_images(**arguments)


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        ([1], TypeError, "masks must be a tensor or a BitMask, got list"),
        (torch.zeros(2, 3, 4), TypeError, "masks must be uint8, bool or a BitMask, got torch.float32"),
        (torch.zeros(2, 3, dtype=torch.uint8), ValueError, r"masks must have shape \[\*, \*, \*\]"),
        (torch.zeros(2, 3, 0, dtype=torch.bool), ValueError, r"sides of 1\.\.16384, got \[2, 3, 0\]"),
    ],
)
def test_errors_of_masks(masks: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="crop_masks: .*" + message):
        ops.crop_masks(masks, size=2)  # type: ignore[arg-type]


def test_box_and_color_are_constants(device: torch.device) -> None:
    images = stored_images(4, 5).to(device)
    box = torch.rand(STORED, 4, device=device, requires_grad=True)
    color = NORMALISED.to(device).clone().requires_grad_()
    assert not ops.crop_images(images, None, box, size=3, color=color).requires_grad
    assert not ops.crop_masks(images[..., 0], None, box, size=3).requires_grad


# As torch operators ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True], ids=["boxes", "whole"])
def test_opcheck(plain: bool, device: torch.device) -> None:
    images = stored_images(6, 7).to(device)
    rows, box = (None, None) if plain else (ROWS.to(device), BOXES.to(device))
    for dtype in DTYPES:
        arguments = (images, rows, box, NORMALISED.to(device), [6, 7], dtype)
        torch.library.opcheck(torch.ops.sal_fast.crop_images, arguments)
    for masks in (images[..., 0], images[..., 0] > 9, BitMask.pack(images[..., 0] > 9).words):
        torch.library.opcheck(torch.ops.sal_fast.crop_masks, (masks, 7, rows, box, [6, 7]))


def test_compile(device: torch.device) -> None:
    images, rows, box = stored_images(20, 30).to(device), ROWS.to(device), BOXES.to(device)
    words, color = BitMask.pack(images[..., 0] > 90).words, NORMALISED.to(device)

    def batch(rows: Tensor, box: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ops.crop_images(images, rows, box, size=(9, 9), color=color, out=out)
        half = ops.crop_images(images, rows, None, size=(20, 30), color=color, dtype=torch.bfloat16)
        return out + 1, half, ops.crop_masks(BitMask(words, 30), rows, box, size=9)

    compiled = torch.compile(batch, fullgraph=True, backend="aot_eager")
    expected = batch(rows, box, torch.empty(5, 3, 9, 9, device=device))
    for got, wanted in zip(
        compiled(rows, box, torch.empty(5, 3, 9, 9, device=device)), expected, strict=True
    ):
        assert torch.equal(got, wanted)
    bad = torch.tensor([0, 1, 99, 2, 3], device=device)
    got, _, masks = compiled(bad, box, torch.empty(5, 3, 9, 9, device=device))
    assert got.isnan().flatten(1).any(1).tolist() == [False, False, True, False, False]
    assert not masks[2].any()


def test_meta() -> None:
    images = torch.empty(7, 30, 20, 3, dtype=torch.uint8, device="meta")
    rows = torch.empty(5, dtype=torch.int64, device="meta")
    box, color = (torch.empty(shape, device="meta") for shape in ((5, 4), (3, 4)))
    got = ops.crop_images(images, rows, box, size=(8, 9), color=color, dtype=torch.float16)
    assert (got.shape, got.dtype) == ((5, 3, 8, 9), torch.float16)
    got = ops.crop_masks(images[..., 0], None, None, size=(8, 9))
    assert (got.shape, got.dtype) == ((7, 8, 9), torch.uint8)
    got = ops.crop_masks(
        BitMask(torch.empty(7, 30, 2, dtype=torch.int32, device="meta"), 40), rows, box, size=6
    )
    assert (got.shape, got.dtype) == ((5, 6, 6), torch.bool)


@on_gpu
def test_replayed_graph_on_a_side_stream() -> None:
    images, rows, box = stored_images(60, 70).cuda(), ROWS.cuda(), BOXES.cuda()
    color = NORMALISED.cuda()

    def step() -> list[Tensor]:
        cropped = ops.crop_images(images, rows, box, size=50, color=color)
        return [cropped, ops.crop_masks(images[..., 0], rows, box, size=50)]

    assert_replays(step, lambda: rows.copy_(torch.tensor([0, 1, 2, 3, 4])))


# The native core -------------------------------------------------------------------------------------------


def test_thread_counts_give_the_same_bits() -> None:
    images = stored_images(64, 80, 40)
    box = torch.rand(40, 4, generator=draws(8))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(
                [
                    ops.crop_images(images, None, b, size=s, color=NORMALISED)
                    for b, s in ((box, 70), (None, (64, 80)))
                ]
                + [ops.crop_masks(images[..., 0], None, box, size=70)]
            )
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


_SAME_ANSWERS = """
import json, torch, sal_fast
from sal_fast import ops
draws = torch.Generator().manual_seed(1)
out = {"capability": sal_fast.build_info().cpu_capability, "values": [], "masks": []}
for height, width in ((1, 1), (9, 31), (40, 150)):
    images = torch.randint(0, 256, (4, height, width, 3), dtype=torch.uint8, generator=draws)
    color, box = torch.randn(4, 3, 4, generator=draws) / 100, 1.5 * torch.rand(4, 4, generator=draws) - 0.2
    bits = ops.BitMask.pack(images[..., 0] > 99)
    for edges, size in ((None, (height, width)), (box, (5, 33)), (box, (50, 16))):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            got = ops.crop_images(images, None, edges, size=size, color=color, dtype=dtype)
            out["values"] += got.flatten()[::7].tolist()
        for masks in (images[..., 0], bits):
            out["masks"] += ops.crop_masks(masks, None, edges, size=size).flatten()[::3].tolist()
print(json.dumps(out))
"""


@pytest.mark.full
def test_other_paths_give_the_same_answers() -> None:
    here = json.loads(run_python(_SAME_ANSWERS))
    for environment, capability in (
        ({"SAL_FAST_NATIVE": "0"}, None),
        ({"SAL_FAST_CPU_CAPABILITY": "generic"}, "generic"),
        ({"SAL_FAST_CPU_CAPABILITY": "avx2"}, "avx2"),
    ):
        if capability == "avx2" and here["capability"] == "generic":
            continue
        there = json.loads(run_python(_SAME_ANSWERS, **environment))
        assert there["capability"] == capability
        assert there["masks"] == here["masks"]
        np.testing.assert_allclose(there["values"], here["values"], rtol=1e-2, atol=1e-5)
