"""sal_fast.ops.topn_mask and topn_dice against a sort in plain Python and numpy, in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from precision import HALVES, assert_replays, full, name_of, on_gpu, run_python
from torch import Tensor

from sal_fast import ops
from sal_fast.ops import BitMask
from sal_fast.ops.topn import reference

dtypes = pytest.mark.parametrize("dtype", [torch.float32, *HALVES, torch.float64], ids=name_of)
packings = pytest.mark.parametrize("packed", [False, True], ids=["bool", "packed"])


def topn_by_sorting(values: np.ndarray, n: int) -> np.ndarray:
    order = sorted(range(values.size), key=lambda i: (-values.flat[i], i))
    mask = np.zeros(values.size, dtype=bool)
    mask[order[:n]] = True
    return mask.reshape(values.shape)


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# topn_mask -------------------------------------------------------------------------------------------------

CASES = {
    "random": torch.randn(3, 9, 7, generator=draws(0)),
    "flat": torch.full((3, 9, 7), 2.5),
    "relu": torch.randn(3, 9, 7, generator=draws(1)).relu(),
    "hot": F.one_hot(torch.tensor([0, 31, 62]), 63).float().view(3, 9, 7),
    "levels": torch.randint(-2, 3, (3, 9, 7), generator=draws(2)).float(),
    "infinite": torch.tensor([-math.inf, -1.0, 3.0, math.inf])[
        torch.randint(0, 4, (3, 9, 7), generator=draws(3))
    ],
    "zeros": torch.tensor([-0.0, 0.0])[torch.randint(0, 2, (3, 9, 7), generator=draws(4))],
    "tiny": torch.randn(3, 9, 7, generator=draws(5)) * 1e-43,
}


def check_mask(maps: Tensor, n: int | Tensor) -> None:
    counts = n.tolist() if isinstance(n, Tensor) else [n] * len(maps)
    values = maps.double().cpu().numpy()
    expected = np.zeros(maps.shape, dtype=bool)
    for i, count in enumerate(counts):
        expected[i] = topn_by_sorting(values[i], count)
    got = ops.topn_mask(maps, n)
    assert got.dtype == torch.bool
    assert got.device == maps.device
    np.testing.assert_array_equal(got.cpu(), expected)
    packed = ops.topn_mask(maps, n, packed=True)
    assert isinstance(packed, BitMask)
    assert torch.equal(packed.words, BitMask.pack(got).words)  # the bits past the width are zero


@dtypes
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n", [0, 1, 30, 63, (0, 17, 63)])
def test_topn_mask(name: str, n: int | tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    counts = n if isinstance(n, int) else torch.tensor(n, device=device)
    check_mask(CASES[name].to(device, dtype), counts)


@pytest.mark.parametrize(
    "shape", [(2, 1, 1), (2, 1, 100), (2, 100, 1), (3, 33, 31), (2, 64, 96), (1, 150, 131), (1, 300, 224)]
)
def test_sizes_of_maps(shape: tuple[int, int, int], device: torch.device) -> None:
    """Beyond 16384 pixels the keys of one bin may be too many to be set aside."""
    area = shape[1] * shape[2]
    noise = torch.randn(shape, generator=draws(6)).to(device)
    for maps in (noise, noise.clamp(min=1.2), 1 + noise * 1e-5, noise.round()):
        for n in (area // 3, area - 1):
            check_mask(maps, n)


@pytest.mark.parametrize("n", [29, 31, 79, 81, 90, 149, 151, 199])
def test_just_below_zero(n: int, device: torch.device) -> None:
    """Zeros do not count again among the tiny negatives below them."""
    values = [1.0] * 30 + [0.0] * 50 + [-1e-40 * (k + 1) for k in range(70)] + [-(1 - 2.0**-24)] * 50
    order = torch.randperm(200, generator=draws(14))
    maps = torch.tensor(values)[order].view(1, 10, 20).to(device)
    check_mask(maps, n)
    mask = torch.zeros(1, 10, 20, dtype=torch.bool, device=device)
    mask.view(-1)[:n] = True
    top = topn_by_sorting(maps[0].cpu().numpy(), n)
    assert int(ops.topn_dice(maps, mask).hits) == int(top.reshape(-1)[:n].sum())


def test_strides_of_maps(device: torch.device) -> None:
    wide = torch.randn(4, 40, 90, generator=draws(7)).relu().to(device)
    n = torch.tensor([100, 5, 900, 300], device=device)
    for maps in (wide[:, ::2], wide[:, :, 1::2], wide.transpose(1, 2), wide[:, 3:, 17:60], wide.flip(2)):
        check_mask(maps, n)
    check_mask(wide[:1].expand(4, -1, -1), n)
    assert torch.equal(
        ops.topn_mask(wide, torch.stack([n, n], 1)[:, 0]), ops.topn_mask(wide, n)
    )  # counts with a stride
    expanded = torch.tensor([70], device=device).expand(4)
    assert torch.equal(ops.topn_mask(wide, expanded), ops.topn_mask(wide, 70))


# topn_dice -------------------------------------------------------------------------------------------------


def enlarged_by_numpy(cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, half-pixel centres, by numpy.interp along each axis: equal neighbours give equal pixels."""
    for axis, pixels in enumerate(size):
        cells = cam.shape[axis]
        places = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
        cam = np.apply_along_axis(
            lambda line, at=places: np.interp(at, np.arange(len(line)), line), axis, cam
        )
    return cam


def masks_of(batch: int, height: int, width: int) -> Tensor:
    """Noise from empty to full."""
    share = torch.linspace(-0.01, 1.01, batch)[:, None, None]
    return torch.rand(batch, height, width, generator=draws(8)) < share


def check_dice(
    cam: Tensor,
    mask: Tensor,
    size: tuple[int, int] | None = None,
    *,
    packed: bool = False,
    rounding: float = 0.0,
) -> ops.TopnDice:
    """Against a sort in float64. `rounding`: pixels so close to the N-th (relative) may stand on either side;
    0 where float32 holds every pixel of these inputs exactly."""
    got = ops.topn_dice(cam, BitMask.pack(mask) if packed else mask, size=size)
    assert [x.dtype for x in got] == [torch.float32, torch.int64, torch.int64]
    if size is not None:
        mask = F.interpolate(mask[:, None].to(torch.uint8), size, mode="nearest")[:, 0].bool()
    height, width = mask.shape[1:]
    for i, (of_cam, of_mask) in enumerate(zip(cam.double().cpu().numpy(), mask.cpu().numpy(), strict=True)):
        n = int(of_mask.sum())
        assert int(got.n[i]) == n
        if n == 0:
            assert math.isnan(got.dice[i])
            assert int(got.hits[i]) == 0
            continue
        large = enlarged_by_numpy(of_cam, (height, width))
        top = topn_by_sorting(large, n)
        hits = int((top & of_mask).sum())
        least = large[top].min()
        near = np.abs(large - least) <= rounding * np.abs(of_cam).max()
        if near.sum() > 1 and rounding:  # which of them are in is a matter of rounding
            others = int((top & of_mask & ~near).sum())
            assert others <= int(got.hits[i]) <= others + int((near & of_mask).sum())
            assert abs(int(got.hits[i]) - hits) <= 4
        else:
            assert int(got.hits[i]) == hits
        assert float(got.dice[i]) == pytest.approx(int(got.hits[i]) / n, rel=1e-6)
    return got


def exact_cams(batch: int, height: int, width: int, kind: str = "random") -> Tensor:
    """Multiples of 2^-8 below 4: with the weights of a power of two, float32 holds every pixel."""
    cams = torch.randint(-1000, 1000, (batch, height, width), generator=draws(9)).float() / 256
    if kind == "relu":
        return (cams - 1).relu()
    if kind == "flat":
        return torch.full_like(cams, -1.25)
    if kind == "hot":
        return F.one_hot(torch.arange(batch) * 5 % (height * width), height * width).view(cams.shape).float()
    if kind == "negative":
        return -cams.abs() - 1
    return cams


@packings
@pytest.mark.parametrize("kind", ["random", "relu", "flat", "hot", "negative"])
@pytest.mark.parametrize(
    ("cam", "size"),
    [((7, 7), (28, 28)), ((7, 7), (224, 224)), ((4, 4), (64, 64)), ((7, 12), (224, 384)), ((9, 5), (9, 5)),
     ((1, 1), (8, 16)), ((3, 5), (12, 5))],
)  # fmt: skip
def test_where_float32_is_exact(
    cam: tuple[int, int], size: tuple[int, int], kind: str, packed: bool, device: torch.device
) -> None:
    got = check_dice(exact_cams(4, *cam, kind=kind).to(device), masks_of(4, *size).to(device), packed=packed)
    assert float(got.dice[3]) == 1.0  # N = H W


@packings
@pytest.mark.parametrize(
    ("cam", "size"),
    [((7, 7), (225, 225)), ((10, 10), (299, 299)), ((7, 7), (29, 31)), ((7, 12), (45, 99)), ((9, 8), (5, 3)),
     ((14, 14), (15, 15)), ((2, 40), (33, 65)), ((40, 40), (50, 50))],
)  # fmt: skip
def test_where_it_rounds(
    cam: tuple[int, int], size: tuple[int, int], packed: bool, device: torch.device
) -> None:
    mask = masks_of(4, *size).to(device)
    check_dice(torch.randn(4, *cam, generator=draws(10)).to(device), mask, packed=packed, rounding=3e-7)
    for kind in ("flat", "hot"):  # ties of plateaus are exact whatever the weights are
        check_dice(exact_cams(4, *cam, kind=kind).to(device), mask, packed=packed, rounding=0.0)


@pytest.mark.parametrize("n", [1, 20_000, 49_000, 50_624])
def test_plateaus_at_a_size_of_uneven_weights(n: int, device: torch.device) -> None:
    """ReLU's zeros tie exactly, so the lowest index wins among them."""
    cam = torch.zeros(1, 7, 7, device=device)
    cam[0, 2, 3] = 1.7
    mask = torch.zeros(1, 225, 225, dtype=torch.bool, device=device)
    mask.view(-1)[:n] = True
    got = ops.topn_dice(cam, mask)
    top = topn_by_sorting(enlarged_by_numpy(cam[0].double().cpu().numpy(), (225, 225)), n)
    assert int(got.hits) == int(top.reshape(-1)[:n].sum())


def misleading(kind: str) -> Tensor:
    """Maps that look otherwise from some rows than they are, or have too many pixels about the N-th."""
    map_ = torch.randint(0, 1 << 20, (1, 400, 400), generator=draws(12)).float()
    looked_at = torch.zeros(400, 1)
    looked_at[[k * 33 // 4 for k in range(49)]] = 1  # as csrc/cpu/topn_select.h does
    if kind == "high where looked at":
        return map_ + looked_at * 2.0**21
    if kind == "low where looked at":
        return map_ - looked_at * 2.0**21
    if kind == "hot":
        map_[:, 7, 9] = 2.0**60
        return map_
    return (map_ < 2.0**19) * 1.0 + (map_ < 1000) * map_ / 2**10  # two plateaus


@pytest.mark.parametrize("kind", ["high where looked at", "low where looked at", "hot", "plateaus"])
@pytest.mark.parametrize("share", [0.0001, 0.5, 0.9999])
def test_where_a_guess_fails(kind: str, share: float, device: torch.device) -> None:
    maps = misleading(kind).to(device)
    n = int(share * 400 * 400)
    top = ops.topn_mask(maps, n)
    for map_, of_map in zip(maps.cpu().numpy(), top.cpu().numpy(), strict=True):
        assert np.array_equal(of_map, topn_by_sorting(map_, n))
    mask = torch.rand(maps.shape, generator=draws(13)) < share
    check_dice(maps, mask.to(device))  # of its own size: nothing is rounded


@dtypes
def test_dtypes(dtype: torch.dtype, device: torch.device) -> None:
    """Half types are enlarged in float32, from their own values."""
    cam = exact_cams(5, 7, 7).to(dtype).to(device)
    check_dice(cam, masks_of(5, 56, 56).to(device))
    expected = ops.topn_dice(cam.float(), masks_of(5, 61, 47).to(device))
    got = ops.topn_dice(cam, masks_of(5, 61, 47).to(device))
    if dtype != torch.float64:
        assert torch.equal(got.hits, expected.hits)


@packings
@pytest.mark.parametrize("stored", [(448, 448), (112, 56), (33, 70), (224, 100), (1, 1)])
def test_size(stored: tuple[int, int], packed: bool, device: torch.device) -> None:
    """The mask is read by nearest, at floor(i in / out)."""
    mask = masks_of(3, *stored).to(device)
    check_dice(exact_cams(3, 7, 7).to(device), mask, (224, 224), packed=packed)


def test_nearest_is_computed_in_integers(device: torch.device) -> None:
    mask = masks_of(3, 49, 300).to(device)
    given = BitMask.pack(mask)
    for size in ((48, 299), (147, 67), (7, 13)):
        at = [[i * a // b for i in range(b)] for a, b in zip((49, 300), size, strict=True)]
        there = mask[:, at[0]][:, :, at[1]]
        assert torch.equal(there, reference.nearest(mask, size))
        cam = exact_cams(3, 7, 7).to(device)
        expected = ops.topn_dice(cam, there)
        for stored in (mask, given):
            got = ops.topn_dice(cam, stored, size=size)
            assert torch.equal(got.hits, expected.hits)
            assert torch.equal(got.n, expected.n)


def test_strides_of_cams_and_masks(device: torch.device) -> None:
    cam = exact_cams(4, 14, 7).to(device)
    wide = masks_of(4, 56, 112).to(device)
    words = BitMask.pack(wide)
    check_dice(cam[:, ::2], wide[:, :, ::2])
    check_dice(cam.transpose(1, 2)[:, :, :7], wide.transpose(1, 2)[:, :56])
    check_dice(cam[:1, :7].expand(4, -1, -1), wide[:, :, 28:84])
    check_dice(cam[:, :7].flip(0), wide[:, :, :56].flip(0))
    rows = BitMask(words.words[:, ::2], 112)
    columns = BitMask(words.words.transpose(1, 2).contiguous().transpose(1, 2), 112)
    for given, mask in ((rows, wide[:, ::2]), (columns, wide)):
        expected = ops.topn_dice(cam, mask)
        assert torch.equal(ops.topn_dice(cam, given).hits, expected.hits)


def test_the_kernels_and_the_reference_agree(device: torch.device) -> None:
    """Where float32 is exact; float64 takes the reference."""
    cam, mask = exact_cams(6, 7, 12).to(device), masks_of(6, 112, 192).to(device)
    ours, theirs = ops.topn_dice(cam, mask), ops.topn_dice(cam.double(), mask)
    assert torch.equal(ours.hits, theirs.hits)
    assert torch.equal(ours.n, theirs.n)
    assert torch.equal(ours.dice[1:], theirs.dice[1:])
    assert ours.dice[:1].isnan().all()


def test_it_is_the_mask_of_the_enlarged_cam(device: torch.device) -> None:
    """topn_mask of what torch enlarges, where torch's enlargement is exact as well."""
    cam, mask = exact_cams(4, 7, 7, "relu").to(device), masks_of(4, 224, 224).to(device)
    large = F.interpolate(cam[:, None], (224, 224), mode="bilinear")[:, 0]
    top = ops.topn_mask(large, mask.flatten(1).sum(1))
    got = ops.topn_dice(cam, mask)
    assert torch.equal(got.hits, (top & mask).flatten(1).sum(1))
    torch.testing.assert_close(got.dice, ops.dice(top, mask), equal_nan=True)


@pytest.mark.parametrize(("empty", "value"), [("skip", math.nan), ("zero", 0.0), ("one", 1.0)])
@packings
def test_empty_policy(empty: ops.topn.Empty, value: float, packed: bool, device: torch.device) -> None:
    mask = torch.zeros(2, 8, 8, dtype=torch.bool, device=device)
    mask[1, 3] = True
    given = BitMask.pack(mask) if packed else mask
    for dtype in (torch.float32, torch.float64):
        got = ops.topn_dice(torch.ones(2, 4, 4, device=device, dtype=dtype), given, empty=empty)
        assert float(got.dice[0]) == pytest.approx(value, nan_ok=True)
        assert got.dice[1].isfinite()
        assert got.n.tolist() == [0, 8]


def test_no_images_and_no_pixels(device: torch.device) -> None:
    for dtype in (torch.float32, torch.float64):
        none = torch.zeros(0, 7, 7, device=device, dtype=dtype)
        mask = torch.zeros(0, 20, 30, dtype=torch.bool, device=device)
        for given in (mask, BitMask.pack(mask)):
            assert [x.shape for x in ops.topn_dice(none, given)] == [(0,)] * 3
        assert ops.topn_mask(none, 3).shape == (0, 7, 7)
        assert ops.topn_mask(none, torch.zeros(0, dtype=torch.int64, device=device)).shape == (0, 7, 7)
        assert ops.topn_mask(none, 3, packed=True).shape == (0, 7, 7)
        assert ops.topn_mask(torch.zeros(2, 0, 5, device=device, dtype=dtype), 0).shape == (2, 0, 5)
        cam = torch.ones(2, 7, 7, device=device, dtype=dtype)
        for size in ((5, 0), (0, 5), (0, 0)):
            flat = torch.zeros(2, *size, dtype=torch.bool, device=device)
            for pixels in (
                flat,
                torch.zeros(2, *size[::-1], dtype=torch.bool, device=device).transpose(1, 2),
            ):
                assert ops.topn_dice(cam, pixels).n.tolist() == [0, 0]
                assert ops.dice(pixels, flat).isnan().all()
            assert ops.topn_dice(cam, torch.ones_like(cam, dtype=torch.bool), size=size).n.tolist() == [0, 0]


# Values that are no numbers --------------------------------------------------------------------------------


def bad_cams() -> Tensor:
    cams = exact_cams(5, 7, 7)
    cams[1, 2, 3] = math.nan
    cams[2, 6, 6] = math.inf
    cams[3, 0, 0] = -math.inf
    return cams


def check_bad_cams(got: ops.TopnDice, good: ops.TopnDice, mask: Tensor) -> None:
    assert got.dice.isnan().tolist() == [False, True, True, True, False]
    assert torch.equal(got.dice[::4], good.dice[::4])
    assert got.hits[1:4].tolist() == [0, 0, 0]
    assert torch.equal(got.n, mask.flatten(1).sum(1))


def check_bad_maps(got: Tensor, good: Tensor) -> None:
    assert got.flatten(1).any(1).tolist() == [True, False, False, False, True]
    assert torch.equal(got[::4], good[::4])


BAD_COUNTS = [10, 10, -1, 50, 10]


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=name_of)
def test_bad_values_on_a_gpu(dtype: torch.dtype) -> None:
    mask = masks_of(7, 28, 28)[1:6].cuda()
    torch.cuda.set_sync_debug_mode("error" if dtype == torch.float32 else "default")
    try:
        got = ops.topn_dice(bad_cams().cuda(non_blocking=True).to(dtype), mask)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    check_bad_cams(got, ops.topn_dice(exact_cams(5, 7, 7).cuda().to(dtype), mask), mask)
    maps = exact_cams(5, 7, 7).cuda().to(dtype)
    good = ops.topn_mask(maps, 10)
    maps[1, 4, 4] = math.nan
    check_bad_maps(ops.topn_mask(maps, torch.tensor(BAD_COUNTS).cuda()), good)


def test_bad_values_in_a_compiled_graph() -> None:
    """It looks at no values: as on a GPU."""
    mask = masks_of(7, 28, 28)[1:6]
    dice = torch.compile(ops.topn_dice, fullgraph=True, backend="aot_eager")
    check_bad_cams(dice(bad_cams(), mask), ops.topn_dice(exact_cams(5, 7, 7), mask), mask)
    maps = exact_cams(5, 7, 7)
    good = ops.topn_mask(maps, 10)
    maps[1, 4, 4] = math.nan
    select = torch.compile(ops.topn_mask, fullgraph=True, backend="aot_eager")
    check_bad_maps(select(maps, torch.tensor(BAD_COUNTS)), good)


# As a torch operator ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, *map(full, HALVES)], ids=name_of)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
def test_opcheck(dtype: torch.dtype, device: torch.device) -> None:
    for batch in (3, 0):
        cam, mask = exact_cams(batch, 7, 7).to(device, dtype), masks_of(batch, 20, 45).to(device)
        for given in (mask, BitMask.pack(mask).words):
            arguments = (cam, given, [45, 20, 45], 0.0)
            torch.library.opcheck(torch.ops.sal_fast.topn_dice.default, arguments)
        n = torch.arange(batch, device=device)
        for counts, packed in itertools.product((n, None), (False, True)):
            torch.library.opcheck(torch.ops.sal_fast.topn_mask.default, (cam, counts, 5, packed))


@pytest.mark.parametrize("packed", [True, full(False)])
def test_compile(packed: bool, device: torch.device) -> None:
    def score(cam: Tensor, mask: Tensor | BitMask, n: Tensor) -> tuple[Tensor, ...]:
        top = ops.topn_mask(cam, n, packed=packed)
        return *ops.topn_dice(cam + 0.5, mask, size=(32, 40)), ops.dice(top, top), ops.dice(top, top) * 2

    cam, mask = exact_cams(3, 8, 8).to(device), masks_of(5, 64, 80)[1:4].to(device)
    given = BitMask.pack(mask) if packed else mask
    n = torch.tensor([3, 40, 64], device=device)
    compiled = torch.compile(score, fullgraph=True, backend="aot_eager")
    for got, expected in zip(compiled(cam, given, n), score(cam, given, n), strict=True):
        assert torch.equal(got, expected)


def test_meta() -> None:
    cam = torch.empty(3, 7, 7, device="meta")
    got = ops.topn_dice(cam, torch.empty(3, 20, 30, device="meta", dtype=torch.bool), size=(40, 60))
    assert [(x.shape, x.dtype) for x in got] == [
        ((3,), torch.float32),
        ((3,), torch.int64),
        ((3,), torch.int64),
    ]
    assert ops.topn_mask(cam, 3).shape == (3, 7, 7)
    assert ops.topn_mask(cam, 3, packed=True).words.shape == (3, 7, 1)


def test_results_have_no_gradient(device: torch.device) -> None:
    cam = exact_cams(2, 7, 7).to(device).requires_grad_()
    got = ops.topn_dice(cam, masks_of(2, 14, 14).to(device))
    assert not any(x.requires_grad for x in got)
    assert not ops.topn_mask(cam, 5).requires_grad


def test_threads_do_not_change_a_bit() -> None:
    before = torch.get_num_threads()
    cam, mask = torch.randn(37, 7, 7, generator=draws(11)), masks_of(37, 75, 61)
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            got = ops.topn_dice(cam, mask)
            results.append([got.dice[1:], got.hits, got.n, ops.topn_mask(cam, torch.arange(37))])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*results, strict=True))


@on_gpu
@packings
def test_replayed_graph_on_a_side_stream(packed: bool) -> None:
    cam, mask = exact_cams(3, 7, 7).cuda(), masks_of(5, 64, 64)[1:4].cuda()
    given = BitMask.pack(mask) if packed else mask
    n = mask.flatten(1).sum(1)

    def step() -> list[Tensor]:
        top = ops.topn_mask(cam, torch.clamp(n, max=49), packed=packed)
        fixed = ops.topn_mask(cam, 20, packed=packed)
        masks = [x.words if isinstance(x, BitMask) else x for x in (top, fixed)]
        return [*ops.topn_dice(cam, given), *masks]

    def change() -> None:
        cam.copy_(exact_cams(6, 7, 7)[3:])
        other = masks_of(5, 64, 64)[[3, 1, 2]].cuda() ^ masks_of(9, 64, 64)[3:6].cuda()
        mask.copy_(other)
        n.copy_(n // 3)
        if isinstance(given, BitMask):
            given.words.copy_(BitMask.pack(other).words)

    assert_replays(step, change)


SCRIPT = """
import hashlib, torch
from sal_fast import ops
torch.set_num_threads({threads})
generator = torch.Generator().manual_seed(0)
digest = hashlib.sha256()
for h, w, H, W in ((7, 7, 225, 225), (7, 12, 100, 131), (10, 10, 299, 299), (20, 30, 25, 33)):
    for change in (torch.Tensor.float, torch.Tensor.relu, torch.Tensor.half, torch.Tensor.bfloat16):
        cam = change(torch.randn(9, h, w, generator=generator))
        mask = torch.rand(9, H, W, generator=generator) < torch.linspace(0.05, 0.95, 9)[:, None, None]
        got = ops.topn_dice(cam, mask)
        large = torch.nn.functional.interpolate(cam.float()[:, None], (H, W), mode="bilinear")[:, 0]
        top = ops.topn_mask(large, got.n)
        for result in (*got, top, ops.topn_mask(large, got.n, packed=True).words, ops.dice(top, mask)):
            digest.update(result.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.full
def test_every_instruction_set_gives_the_same_bits() -> None:
    expected = run_python(SCRIPT.format(threads=1))
    for capability in ("generic", "avx2"):
        assert run_python(SCRIPT.format(threads=2), SAL_FAST_CPU_CAPABILITY=capability) == expected


# Errors ----------------------------------------------------------------------------------------------------

CAM = torch.rand(2, 4, 4)
MASK = torch.ones(2, 8, 8, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.topn_mask(CAM, 17), ValueError, r"0\.\.16, got 17"),
        (lambda: ops.topn_mask(CAM, -1), ValueError, r"0\.\.16, got -1"),
        (lambda: ops.topn_mask(CAM, torch.tensor([3, 20])), ValueError, r"0\.\.16, got 3\.\.20"),
        (lambda: ops.topn_mask(CAM, torch.tensor([3])), ValueError, r"n must have shape \[2\], got \[1\]"),
        (lambda: ops.topn_mask(CAM, torch.tensor([3, 4]).int()), TypeError, "must be int64, got torch.int32"),
        (lambda: ops.topn_mask(CAM, 2.0), TypeError, "n must be an int or an int64 tensor, got float"),
        (lambda: ops.topn_mask(CAM.long(), 2), TypeError, "floating dtype, got torch.int64"),
        (lambda: ops.topn_mask(CAM[0], 2), ValueError, r"maps must have shape \[\*, \*, \*\], got \[4, 4\]"),
        (lambda: ops.topn_mask(torch.full((1, 2, 2), math.nan), 1), ValueError, "maps contain NaN"),
        (lambda: ops.topn_mask(torch.full((1, 2, 2), math.nan).double(), 0), ValueError, "maps contain NaN"),
        (lambda: ops.topn_dice(torch.full((2, 2, 2), math.nan), MASK), ValueError, "cam contains NaN"),
        (lambda: ops.topn_dice(torch.full((2, 2, 2), -math.inf), MASK), ValueError, "an infinity"),
        (lambda: ops.topn_dice(torch.full((2, 2, 2), 3e38), MASK), ValueError, "beyond 1.7e38"),
        (lambda: ops.topn_dice(CAM, MASK.float()), TypeError, "must be bool or a BitMask, got torch.float32"),
        (lambda: ops.topn_dice(CAM, [1]), TypeError, "mask must be a tensor or a BitMask, got list"),
        (lambda: ops.topn_dice(CAM, MASK[:1]), ValueError, r"mask must have shape \[2, \*, \*\], got \[1, 8"),
        (lambda: ops.topn_dice(CAM, MASK[0]), ValueError, r"mask must have shape \[\*, \*, \*\], got \[8, 8"),
        (lambda: ops.topn_dice(CAM, MASK, empty="nan"), ValueError, "empty must be one of skip, zero, one"),
        (lambda: ops.topn_dice(CAM, MASK, size=(-1, 4)), ValueError, r"not be negative, got \(-1, 4\)"),
        (lambda: ops.topn_dice(CAM[:, :0], MASK), ValueError, r"at least one pixel, got \[2, 0, 4\]"),
        (lambda: ops.topn_dice(CAM, MASK[:, :0], size=(2, 2)), ValueError, r"one pixel, got \[2, 0, 8\]"),
        (lambda: ops.topn_dice(CAM, MASK.to("meta")), ValueError, "cam on cpu, mask on meta"),
    ],
)  # fmt: skip
def test_refused(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
