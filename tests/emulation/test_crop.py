"""csrc/cuda/crop.cu, executed on the host, against the float64 reference."""

import math

import pytest
import torch
from torch import Tensor

from sal_fast.ops import BitMask
from sal_fast.ops.crop import reference

from .conftest import Emulation

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BYTES, BITS = 0, 1
POISON = 0x55
STORED = 4
ROWS = torch.tensor([3, 0, 3, 1])
BOXES = torch.tensor(
    [[0.0, 0.0, 1.0, 1.0], [0.13, 0.22, 0.91, 0.83], [0.95, 0.1, 0.2, 0.7], [-0.3, 1.2, 1.4, -0.1]]
)
COLORS = torch.randn(STORED, 3, 4, generator=torch.Generator().manual_seed(1)) / 100
SIZES = (((1, 1), (3, 5)), ((3, 5), (1, 1)), ((9, 40), (33, 70)), ((20, 31), (20, 31)))


def stored_images(height: int, width: int, count: int = STORED) -> Tensor:
    draws = torch.Generator().manual_seed(height + width)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=draws)


def storage_of(tensor: Tensor) -> Tensor:
    """What the strides of `tensor` reach, from its first element on."""
    used = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.as_strided((used if tensor.numel() else 0,), (1,))


def batch_of(stored: Tensor, rows: Tensor | None) -> int:
    return len(stored) if rows is None else len(rows)


def crop_images(
    emulation: Emulation,
    images: Tensor,
    rows: Tensor | None,
    box: Tensor | None,
    color: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    **launch: int,
) -> Tensor:
    shape = (batch_of(images, rows), 3, *size)
    out = torch.full(shape, POISON, dtype=torch.uint8).repeat_interleave(dtype.itemsize, -1).view(dtype)
    emulation.launch(
        "crop_images", images=storage_of(images), stored=len(images), height=images.shape[1],
        width=images.shape[2], image_stride=images.stride(0), row_stride=images.stride(1), rows=rows, box=box,
        color=color, color_stride=0 if color.ndim == 2 else 12, batch=len(out), out_height=size[0],
        out_width=size[1], dtype=DTYPES.index(dtype), out=out, **launch,
    )  # fmt: skip
    return out


def crop_masks(
    emulation: Emulation,
    masks: Tensor,
    rows: Tensor | None,
    box: Tensor | None,
    size: tuple[int, int],
    bits: bool = False,
    **launch: int,
) -> Tensor:
    stored = masks
    if bits:
        stored = BitMask.pack(masks.bool()).words.clone()
        if masks.shape[2] % 32:
            stored[..., -1] |= -1 << masks.shape[2] % 32  # bits that are no pixels
    out = torch.full((batch_of(masks, rows), *size), POISON, dtype=torch.uint8)
    fields = {
        "data": storage_of(stored), "type": BITS if bits else BYTES, "height": masks.shape[1],
        "width": masks.shape[2], "image_stride": stored.stride(0), "row_stride": stored.stride(1),
        "column_stride": 1,
    }  # fmt: skip
    emulation.launch(
        "crop_masks", masks=fields, stored=len(masks), rows=rows, box=box, batch=len(out),
        out_height=size[0], out_width=size[1], out=out, **launch,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sizes(emulation: Emulation, dtype: torch.dtype) -> None:
    eps = 1e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    for stored, size in SIZES:
        images = stored_images(*stored)
        for rows, box, color in (
            (ROWS, BOXES, COLORS),
            (None, None, COLORS[0]),
            (ROWS[:3], None, COLORS[:3]),
        ):
            got = crop_images(emulation, images, rows, box, color, size, dtype)
            exact = reference.crop_images(images, rows, box, color.double(), size)
            torch.testing.assert_close(got.double(), exact, rtol=eps, atol=1e-5)


def test_masks(emulation: Emulation) -> None:
    for stored, size in SIZES:
        levels = stored_images(*stored)[..., 0].contiguous()
        for rows, box in ((ROWS, BOXES), (None, None), (ROWS[:3], None)):
            expected = reference.crop_masks(levels, rows, box, size)
            assert torch.equal(crop_masks(emulation, levels, rows, box, size), expected)
            binary = (levels > 99).byte()
            expected = reference.crop_masks(binary, rows, box, size)
            assert torch.equal(crop_masks(emulation, binary, rows, box, size, bits=True), expected)


def test_strided_images_at_any_address(emulation: Emulation) -> None:
    images = stored_images(20, 30)[:, 2:19:2, 3:28]
    masks = stored_images(20, 30)[..., 0].contiguous()[:, 2:19:2, 3:28]
    for offset in (0, 1, 3):
        for box in (BOXES, None):
            size = (11, 13) if box is not None else (9, 25)
            got = crop_images(emulation, images, ROWS, box, COLORS, size, offset=offset)
            exact = reference.crop_images(images, ROWS, box, COLORS.double(), size)
            torch.testing.assert_close(got.double(), exact, rtol=1e-6, atol=1e-5)
            got = crop_masks(emulation, masks, ROWS, box, size, offset=offset)
            assert torch.equal(got, reference.crop_masks(masks, ROWS, box, size))


def test_a_block_takes_several_tiles_in_any_order(emulation: Emulation) -> None:
    images = stored_images(12, 20)
    size = (40, 60)
    exact = reference.crop_images(images, ROWS, BOXES, COLORS.double(), size)
    for seed in range(3):
        launch = {"seed": seed, "most_blocks": 2}
        got = crop_images(emulation, images, ROWS, BOXES, COLORS, size, **launch)
        torch.testing.assert_close(got.double(), exact, rtol=1e-6, atol=1e-5)
        got = crop_masks(emulation, images[..., 0].contiguous(), ROWS, BOXES, size, **launch)
        assert torch.equal(got, reference.crop_masks(images[..., 0], ROWS, BOXES, size))


def test_bad_rows_and_boxes_stay_inside_the_memory(emulation: Emulation) -> None:
    images = stored_images(9, 14)
    masks = images[..., 0] | 1
    rows = torch.tensor([-1, STORED, 1 << 62, -(1 << 63), 2])
    bad = [True, True, True, True, False]
    color = COLORS[0]
    for box in (None, BOXES[:1].expand(5, 4).contiguous()):
        for size in ((9, 14), (5, 6)):
            got = crop_images(emulation, images, rows, box, color, size)
            assert got.isnan().flatten(1).all(1).tolist() == bad
            for bits in (False, True):
                got = crop_masks(emulation, masks, rows, box, size, bits)
                assert (got == 0).flatten(1).all(1).tolist() == bad
    rows = torch.tensor([0, 1, 2, 3, 1])
    for place in range(4):
        box = BOXES[:1].repeat(5, 1)
        box[:3, place] = torch.tensor([math.nan, math.inf, -math.inf])
        box[3, place] = 3e38
        for dtype in DTYPES:
            got = crop_images(emulation, images, rows, box, color, (5, 6), dtype)
            assert got.isnan().flatten(1).any(1).tolist() == [True, True, True, False, False]
            assert got[:3].isnan().all()
        got = crop_masks(emulation, masks, rows, box, (5, 6))
        assert (got == 0).flatten(1).all(1).tolist() == [True, True, True, False, False]


def test_nothing(emulation: Emulation) -> None:
    assert crop_images(emulation, stored_images(4, 5), ROWS[:0], None, COLORS[0], (2, 3)).shape == (
        0,
        3,
        2,
        3,
    )
    assert crop_masks(emulation, stored_images(4, 5, 0)[..., 0].contiguous(), None, None, (2, 3)).shape == (
        0,
        2,
        3,
    )
