"""csrc/cuda/minmax_normalize.cu, executed on the host, against the float64 reference."""

import itertools

import pytest
import torch
from torch import Tensor

from sal_fast.ops.minmax_normalize import reference

from .conftest import Emulation

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def oracle(maps: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Result and gradient in float64."""
    exact = maps.double()[:, None].requires_grad_()
    out = reference.minmax_normalize(exact)
    return out.detach()[:, 0], torch.autograd.grad(out, exact, upstream.double()[:, None])[0][:, 0]


def run(emulation: Emulation, maps: Tensor, upstream: Tensor, **options: int) -> tuple[Tensor, Tensor]:
    out = torch.full(maps.shape, torch.nan)
    grad = torch.full_like(maps, torch.nan)
    count, size = maps.shape
    fields = {"maps": maps, "dtype": DTYPES.index(maps.dtype), "count": count, "size": size, **options}
    emulation.launch("minmax_normalize", **fields, out=out)
    emulation.launch("minmax_normalize_backward", **fields, upstream=upstream, grad=grad)
    return out, grad


def random_maps(count: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(size)
    maps = 7 * torch.randn(count, size, generator=draws) - 3
    return maps.to(dtype), torch.randn(count, size, generator=draws)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sizes(emulation: Emulation, dtype: torch.dtype) -> None:
    shapes = [(0, 49), (1, 1), (5, 2), (9, 49), (17, 50), (3, 1023), (2, 1024), (2, 1025), (2, 5000)]
    for (count, size), offset in itertools.product(shapes, (0, 1)):
        maps, upstream = random_maps(count, size, dtype)
        exact = oracle(maps, upstream)
        out, grad = run(emulation, maps, upstream, offset=offset * maps.itemsize)
        torch.testing.assert_close(out.double(), exact[0], rtol=1e-6, atol=1e-7)
        rtol = max(2e-5, torch.finfo(dtype).eps)
        torch.testing.assert_close(grad.double(), exact[1], rtol=rtol, atol=rtol * 1e-1)


@pytest.mark.parametrize("size", [49, 3000])
def test_flat_tied_and_bad_maps(emulation: Emulation, size: int) -> None:
    maps, upstream = random_maps(5, size, torch.float32)
    maps[0] = 0.7
    maps[1, ::2] = maps[1].max()
    maps[1, 1::4] = maps[1].min()
    maps[2, size // 2] = torch.nan
    maps[3] = 0
    maps[3, 40] = 1  # one hot
    out, grad = run(emulation, maps, upstream)
    exact = oracle(maps, upstream)
    torch.testing.assert_close(out.double(), exact[0], rtol=1e-6, atol=1e-7, equal_nan=True)
    torch.testing.assert_close(grad.double(), exact[1], rtol=2e-5, atol=2e-6, equal_nan=True)
    assert (out[0] == 0).all()
    assert (grad[0] == 0).all()
    assert out.isnan().all(1).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("size", [49, 1500])
def test_any_order_of_threads_and_few_blocks_give_the_same_bits(emulation: Emulation, size: int) -> None:
    maps, upstream = random_maps(19, size, torch.float32)
    first = run(emulation, maps, upstream)
    for seed in range(1, 4):
        other = run(emulation, maps, upstream, seed=seed, most_blocks=2)
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
