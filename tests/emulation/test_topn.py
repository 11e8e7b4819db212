"""csrc/cuda/topn.cu and dice.cu, executed on the host, against a sort and the reference."""

import dataclasses
import itertools
import math

import pytest
import torch
from precision import full
from torch import Tensor

from sal_fast.ops import BitMask
from sal_fast.ops.dice import reference as dice_reference
from sal_fast.ops.topn import reference

from .conftest import Emulation

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BYTES, BITS = 0, 1
POISON = 0x55


@dataclasses.dataclass(frozen=True)
class Launch:
    seed: int = 0
    most_blocks: int = 1 << 20


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def storage_of(tensor: Tensor) -> Tensor:
    """What the strides of `tensor` reach, from its first element on."""
    used = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.as_strided((used if tensor.numel() else 0,), (1,))


def poisoned(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.full(shape, POISON, dtype=torch.uint8).repeat_interleave(dtype.itemsize, -1).view(dtype)


def packed(mask: Tensor) -> Tensor:
    """As words; those bits that are no pixels are set."""
    words = BitMask.pack(mask).words.clone()
    if words.numel() and mask.shape[2] % 32:
        words[..., -1] |= -1 << mask.shape[2] % 32
    return words


def mask_fields(mask: Tensor, bits: bool) -> dict[str, Tensor | int]:
    stored = packed(mask) if bits else mask
    image_stride, row_stride, column_stride = stored.stride()
    return {
        "data": storage_of(stored), "type": BITS if bits else BYTES, "height": mask.shape[1],
        "width": mask.shape[2], "image_stride": image_stride, "row_stride": row_stride,
        "column_stride": column_stride,
    }  # fmt: skip


# topn_mask -------------------------------------------------------------------------------------------------


def topn_mask(
    emulation: Emulation, maps: Tensor, n: int | Tensor, *, bits: bool = False, launch: Launch = Launch()
) -> tuple[Tensor, Tensor]:
    """The mask as bool, and which maps are valid."""
    batch, height, width = maps.shape
    tensor, count = (n, 0) if isinstance(n, Tensor) else (None, n)
    shape = (batch, height, -(-width // 32)) if bits else (batch, height, width)
    out = poisoned(*shape, dtype=torch.int32 if bits else torch.uint8)
    valid = poisoned(batch, dtype=torch.uint8)
    image_stride, row_stride, column_stride = maps.stride()
    emulation.launch(
        "topn_mask", maps=storage_of(maps), dtype=DTYPES.index(maps.dtype), images=batch, height=height,
        width=width, image_stride=image_stride, row_stride=row_stride, column_stride=column_stride,
        counts=tensor, counts_stride=0 if tensor is None else 1, count=count,
        out_type=BITS if bits else BYTES, out=out, valid=valid, **dataclasses.asdict(launch),
    )  # fmt: skip
    assert (valid <= 1).all()
    if not bits:
        assert (out <= 1).all()
        return out.bool(), valid.bool()
    mask = BitMask(out, width).unpack()
    assert torch.equal(BitMask.pack(mask).words, out)  # the bits past the width are zero
    return mask, valid.bool()


def maps_of(kind: str, batch: int, height: int, width: int) -> Tensor:
    noise = torch.randn(batch, height, width, generator=draws(height + width))
    return {
        "noise": noise,
        "relu": (noise - 0.5).relu(),
        "flat": torch.full_like(noise, -2.5),
        "hot": torch.where(noise == noise.amax((1, 2), keepdim=True), 3.0, 0.0),
        "levels": noise.round(),
        "close": 1 + noise * 1e-6,
        "infinite": torch.where(noise > 1, math.inf, torch.where(noise < -1, -math.inf, noise)),
        "zeros": torch.where(noise > 0, 0.0, -0.0),
        "tiny": noise * 1e-43,
    }[kind]


KINDS = ("noise", "relu", "flat", "hot", "levels", "close", "infinite", "zeros", "tiny")


@pytest.mark.parametrize(
    "kind", [kind if kind in ("relu", "infinite", "zeros", "tiny") else full(kind) for kind in KINDS]
)
def test_masks(emulation: Emulation, kind: str) -> None:
    for height, width in ((9, 31), (17, 40)):
        area = height * width
        maps = maps_of(kind, 5, height, width)
        n = torch.tensor([0, 1, area // 3, area - 1, area])
        for bits in (False, True):
            got, valid = topn_mask(emulation, maps, n, bits=bits)
            assert valid.all()
            assert torch.equal(got, reference.topn_mask(maps.double(), n))


def test_mask_sizes_and_dtypes(emulation: Emulation) -> None:
    for height, width in ((1, 1), (1, 70), (70, 1), (8, 32), (33, 65), (64, 64)):
        for dtype in DTYPES:
            maps = maps_of("relu", 2, height, width).to(dtype)
            n = height * width * 2 // 3
            got, valid = topn_mask(emulation, maps, n, bits=width > 32)
            assert valid.all()
            assert torch.equal(got, reference.topn_mask(maps, torch.tensor([n, n])))


def test_mask_strides(emulation: Emulation) -> None:
    wide = maps_of("levels", 3, 20, 50)
    for maps in (wide[:, ::2], wide[:, :, 1::2], wide.transpose(1, 2), wide[:1].expand(3, -1, -1)):
        n = torch.tensor([5, 200, 70])
        got, _ = topn_mask(emulation, maps, n)
        assert torch.equal(got, reference.topn_mask(maps, n))


def test_bad_maps_set_nothing(emulation: Emulation) -> None:
    for number in (math.nan, -math.nan):
        maps = maps_of("noise", 6, 9, 40)
        maps[1, 3, 3] = number
        maps[2] = number
        n = torch.tensor([30, 30, 0, -1, 361, 30])
        for bits in (False, True):
            got, valid = topn_mask(emulation, maps, n, bits=bits, launch=Launch(most_blocks=2))
            assert valid.tolist() == [True, False, False, False, False, True]
            assert got.flatten(1).sum(1).tolist() == [30, 0, 0, 0, 0, 30]


def test_masks_of_nothing(emulation: Emulation) -> None:
    assert topn_mask(emulation, torch.zeros(0, 4, 5), 3)[0].shape == (0, 4, 5)
    for shape in ((2, 0, 5), (2, 5, 0)):
        got, valid = topn_mask(emulation, torch.zeros(shape), 0)
        assert valid.all()
        assert got.shape == shape


# topn_dice -------------------------------------------------------------------------------------------------


def topn_dice(
    emulation: Emulation,
    cam: Tensor,
    mask: Tensor,
    size: tuple[int, int] | None = None,
    *,
    bits: bool = False,
    empty: float = math.nan,
    launch: Launch = Launch(),
) -> tuple[Tensor, Tensor, Tensor]:
    batch = len(cam)
    dice = poisoned(batch, dtype=torch.float32)
    hits, n = poisoned(batch, dtype=torch.int64), poisoned(batch, dtype=torch.int64)
    height, width = size or mask.shape[1:]
    emulation.launch(
        "topn_dice", cam=cam, dtype=DTYPES.index(cam.dtype), images=batch, cam_height=cam.shape[1],
        cam_width=cam.shape[2], mask=mask_fields(mask, bits), height=height, width=width, empty=empty,
        dice=dice, hits=hits, n=n, **dataclasses.asdict(launch),
    )  # fmt: skip
    return dice, hits, n


def exact_cams(batch: int, height: int, width: int, kind: str = "random") -> Tensor:
    """Multiples of 2^-8 below 4: with the weights of a power of two, float32 holds every pixel."""
    cams = torch.randint(-1000, 1000, (batch, height, width), generator=draws(height)).float() / 256
    if kind == "hot":
        return torch.where(cams == cams.amax((1, 2), keepdim=True), 1.0, 0.0)
    return {"random": cams, "relu": cams.relu(), "flat": torch.full_like(cams, 3.0)}[kind]


def masks_of(batch: int, height: int, width: int) -> Tensor:
    """From empty to full."""
    share = torch.linspace(-0.01, 1.01, batch)[:, None, None]
    return torch.rand(batch, height, width, generator=draws(width)) < share


def check_dice(emulation: Emulation, cam: Tensor, mask: Tensor, **options: object) -> None:
    dice, hits, n = topn_dice(emulation, cam, mask, **options)
    size = options.get("size") or tuple(mask.shape[1:])
    pixels = reference.nearest(mask, size)
    expected, count = reference.topn_hits(cam.double(), pixels)
    assert torch.equal(n, count)
    assert torch.equal(hits, expected)
    exact = torch.where(n > 0, hits / n, math.nan)
    torch.testing.assert_close(dice, exact, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        case if case in (("random", True), ("relu", False), ("flat", True)) else full(*case)
        for case in itertools.product(("random", "relu", "flat", "hot"), (False, True))
    ],
)
def test_dice_where_float32_is_exact(emulation: Emulation, kind: str, bits: bool) -> None:
    for cam, size in (((7, 7), (28, 28)), ((7, 5), (56, 40)), ((6, 6), (48, 96)), ((9, 33), (9, 33))):
        check_dice(emulation, exact_cams(4, *cam, kind=kind), masks_of(4, *size), bits=bits)


@pytest.mark.parametrize("dtype", [full(DTYPES[0]), *DTYPES[1:]], ids=str)
def test_dice_of_every_dtype(emulation: Emulation, dtype: torch.dtype) -> None:
    cam = exact_cams(3, 7, 7).to(dtype)
    check_dice(emulation, cam, masks_of(5, 28, 56)[1:4])
    many = exact_cams(2, 40, 30).to(dtype)  # more cells than are kept
    check_dice(emulation, many, masks_of(4, 80, 60)[1:3])
    check_dice(emulation, many, masks_of(4, 80, 60)[1:3], size=(40, 120), bits=True)


def test_dice_where_it_rounds(emulation: Emulation) -> None:
    """Pixels within rounding of the N-th may stand on either side."""
    for h, w, size in ((7, 7, (45, 45)), (10, 10, (31, 29)), (5, 40, (4, 3)), (3, 2, (1, 90))):
        cam, mask = torch.randn(4, h, w, generator=draws(h)), masks_of(4, *size)
        _, hits, n = topn_dice(emulation, cam, mask)
        expected, count = reference.topn_hits(cam.double(), mask)
        assert torch.equal(n, count)
        assert ((hits - expected).abs() <= 1).all()
        for kind in ("flat", "hot"):
            check_dice(emulation, exact_cams(4, h, w, kind), mask)


def test_a_side_longer_than_the_weights_that_are_kept(emulation: Emulation) -> None:
    check_dice(emulation, exact_cams(1, 3, 600), masks_of(3, 3, 1200)[1:2])
    check_dice(emulation, exact_cams(1, 600, 2), masks_of(3, 1200, 2)[1:2], bits=True)


@pytest.mark.parametrize("bits", [False, True], ids=["bool", "packed"])
def test_masks_are_read_by_nearest(emulation: Emulation, bits: bool) -> None:
    for stored in ((56, 64), (14, 7), (33, 70), (1, 1)):
        check_dice(emulation, exact_cams(3, 7, 7), masks_of(3, *stored), size=(28, 28), bits=bits)


def test_mask_strides_of_dice(emulation: Emulation) -> None:
    cam, wide = exact_cams(3, 8, 8), masks_of(5, 64, 96)[1:4]
    for mask in (wide[:, ::2, ::3], wide.transpose(1, 2)[:, :64, :64], wide[:, :, 16:80], wide[:, :, 1:65]):
        check_dice(emulation, cam, mask)
    check_dice(emulation, cam, wide[:1, :, :64].expand(3, -1, -1))


def test_bad_cams_give_nan(emulation: Emulation) -> None:
    cam, mask = exact_cams(6, 7, 7), masks_of(8, 28, 28)[1:7]
    good = topn_dice(emulation, cam, mask)
    for place, number in enumerate((math.nan, -math.nan, math.inf, -3e38), 1):
        cam[place, place, 2] = number
    dice, hits, n = topn_dice(emulation, cam, mask, launch=Launch(most_blocks=2))
    assert dice.isnan().tolist() == [False, True, True, True, True, False]
    assert hits[1:5].tolist() == [0, 0, 0, 0]
    assert torch.equal(n, good[2])
    for one, other in zip((dice, hits), good, strict=False):
        assert torch.equal(one[::5], other[::5])


def test_empty_masks(emulation: Emulation) -> None:
    mask = torch.zeros(2, 14, 40, dtype=torch.bool)
    mask[1, 2] = True
    for bits in (False, True):
        for empty in (0.0, 1.0):
            dice, hits, n = topn_dice(emulation, exact_cams(2, 7, 5), mask, bits=bits, empty=empty)
            assert dice[0] == empty
            assert n.tolist() == [0, 40]
            assert hits[0] == 0
    assert topn_dice(emulation, torch.zeros(0, 7, 7), mask[:0])[0].shape == (0,)


def test_any_order_of_threads_and_few_blocks_give_the_same_bits(emulation: Emulation) -> None:
    cam, mask = torch.randn(3, 7, 7, generator=draws(1)).relu(), masks_of(5, 45, 50)[1:4]
    maps, n = maps_of("relu", 3, 30, 45), torch.tensor([1300, 7, 400])
    first = (*topn_dice(emulation, cam, mask), *topn_mask(emulation, maps, n))
    for seed in (1, 2):
        launch = Launch(seed, 2)
        other = (
            *topn_dice(emulation, cam, mask, launch=launch),
            *topn_mask(emulation, maps, n, launch=launch),
        )
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


# dice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second_bits", [False, True])
@pytest.mark.parametrize("first_bits", [False, True])
def test_dice(emulation: Emulation, first_bits: bool, second_bits: bool) -> None:
    for batch, height, width in ((4, 1, 1), (3, 7, 31), (3, 9, 70), (3, 16, 64), (3, 40, 96), (0, 4, 4)):
        wide = masks_of(batch, height, width) if batch else torch.zeros(0, height, width, dtype=torch.bool)
        first, second = wide, wide.roll((1, 3), (1, 2)) & wide.flip(2)
        result = poisoned(batch, dtype=torch.float32)
        emulation.launch(
            "dice", images=batch, first=mask_fields(first, first_bits),
            second=mask_fields(second, second_bits), empty=1.0, dice=result, most_blocks=2, seed=batch,
        )  # fmt: skip
        assert torch.equal(result, dice_reference.dice(first, second, 1.0))


def test_dice_strides(emulation: Emulation) -> None:
    wide = masks_of(5, 32, 96)[1:4]
    other = wide.flip(1)
    for a, b in (
        (wide[:, ::2], other[:, ::2]),
        (wide.transpose(1, 2), other.transpose(1, 2)),
        (wide[:, :, 16:80], other[:, :, 1:65]),
        (wide[:1].expand(3, -1, -1), other),
    ):
        result = poisoned(3, dtype=torch.float32)
        masks = {"first": mask_fields(a, False), "second": mask_fields(b, False)}
        emulation.launch("dice", images=3, **masks, empty=math.nan, dice=result)
        assert torch.equal(result, dice_reference.dice(a, b, math.nan))
