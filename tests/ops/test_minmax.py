"""sal_fast.ops.minmax_normalize against plain torch in float64, on every device that exists."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.ops.minmax_normalize import reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
SHAPES = [(3, 7, 7), (2, 1, 1), (1, 1, 2), (5, 7, 12), (2, 3, 31, 33), (4, 14, 14), (7, 4, 4), (2, 57, 91)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def random_maps(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    return (7 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) - 3).to(dtype)


def oracle(maps: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Result and gradient in float64, by torch's autograd."""
    exact = maps.detach().cpu().double().requires_grad_()
    out = reference.minmax_normalize(exact)
    return out.detach(), torch.autograd.grad(out, exact, upstream.cpu().double())[0]


@dtypes
@shapes
def test_values_and_gradients(dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> None:
    """As good as torch, which computes the gradient of fp16 and bf16 maps in float32 too."""
    maps = random_maps(shape, dtype).to(device).requires_grad_()
    upstream = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device)
    exact, exact_grad = oracle(maps, upstream)
    out = ops.minmax_normalize(maps)
    (grad,) = torch.autograd.grad(out, maps, upstream)
    assert (out.dtype, grad.dtype, out.shape) == (torch.float32, dtype, shape)
    torchs = reference.minmax_normalize(maps.float())
    (torchs_grad,) = torch.autograd.grad(torchs, maps, upstream)
    for got, other, expected in ((out, torchs, exact), (grad, torchs_grad, exact_grad)):
        error = (got.detach().double().cpu() - expected).abs().max()
        allowed = 2 * (other.detach().double().cpu() - expected).abs().max()
        assert error <= allowed + torch.finfo(got.dtype).eps * expected.abs().max() / 2
    if maps[0].numel() > 1:
        assert (out.detach().amin((-2, -1)) == 0).all()
        assert (out.detach().amax((-2, -1)) == 1).all()


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1.0, -3e4, 1e-6])
@pytest.mark.parametrize("size", [3, 40])
def test_flat_map_is_zeros_with_zero_gradient(
    value: float, dtype: torch.dtype, size: int, device: torch.device
) -> None:
    maps = torch.full((2, size, size), value, dtype=dtype, device=device)
    maps[1, 0, 0] = 2
    maps.requires_grad_()
    out = ops.minmax_normalize(maps)
    out.backward(torch.ones_like(out))
    assert maps.grad is not None
    assert (out[0] == 0).all()
    assert (maps.grad[0] == 0).all()
    assert (out[1] != 0).any()


def test_flat_up_to_rounding(device: torch.device) -> None:
    eps = torch.finfo(torch.float32).eps
    maps = torch.tensor([[[1.0, 1 + 6 * eps]], [[1.0, 1 + 12 * eps]]], device=device)
    assert ops.is_flat(maps).tolist() == [True, False]
    assert ops.minmax_normalize(maps).tolist() == [[[0.0, 0.0]], [[0.0, 1.0]]]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_ties_share_the_gradient(dtype: torch.dtype, device: torch.device) -> None:
    maps = torch.tensor([[0.0, 0.0, 0.5, 1.0]], dtype=dtype, device=device)[None].requires_grad_()
    ops.minmax_normalize(maps)[0, 0, 2].backward()
    assert maps.grad is not None
    np.testing.assert_allclose(maps.grad[0, 0].double().cpu(), [-0.25, -0.25, 1.0, -0.5])


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("at", [0, 5, 48])
def test_nan_stays_in_its_map(at: int, dtype: torch.dtype, device: torch.device) -> None:
    maps = random_maps((3, 7, 7), dtype).to(device)
    maps[1].view(-1)[at] = torch.nan
    maps.requires_grad_()
    out = ops.minmax_normalize(maps)
    (grad,) = torch.autograd.grad(out.sum(), maps)
    assert out.isnan().all((1, 2)).tolist() == [False, True, False]
    assert out.isnan().any((1, 2)).tolist() == [False, True, False]
    assert grad.isnan().any((1, 2)).tolist() == [False, True, False]


def test_strides(device: torch.device) -> None:
    wide = random_maps((6, 9, 14), torch.float32).to(device)
    for view in (wide[:, 1:8, 2:9], wide[::2], wide.transpose(1, 2), wide[:1].expand(4, -1, -1)):
        assert torch.equal(ops.minmax_normalize(view), ops.minmax_normalize(view.contiguous()))
        x = view.detach().requires_grad_()
        weights = torch.arange(x.numel(), device=device, dtype=torch.float32).view(x.shape)
        (grad,) = torch.autograd.grad((ops.minmax_normalize(x) * weights).sum(), x)
        packed = view.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        (expected,) = torch.autograd.grad((ops.minmax_normalize(packed) * weights).sum(), packed)
        assert torch.equal(grad, expected)


@pytest.mark.parametrize("shape", [(0, 7, 7), (2, 0, 3), (0, 0, 0)])
def test_empty(shape: tuple[int, ...], device: torch.device) -> None:
    maps = torch.empty(shape, device=device, requires_grad=True)
    out = ops.minmax_normalize(maps)
    out.sum().backward()
    assert out.shape == shape
    assert maps.grad is not None
    assert maps.grad.shape == shape


def test_gradcheck() -> None:
    maps = random_maps((2, 3, 4), torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(ops.minmax_normalize, (maps,))


@pytest.mark.parametrize(
    ("maps", "error", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), TypeError, "floating dtype, got torch.int64"),
        (torch.zeros(3), ValueError, r"\[\.\.\., h, w\], got \[3\]"),
    ],
)
def test_errors(maps: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.minmax_normalize(maps)


# As a torch operator ---------------------------------------------------------------------------------------


@dtypes
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
def test_opcheck(dtype: torch.dtype, device: torch.device) -> None:
    for shape in ((2, 3, 5), (0, 3, 3)):
        maps = random_maps(shape, dtype).to(device)
        torch.library.opcheck(torch.ops.sal_fast.minmax_normalize, (maps.requires_grad_(),))
        upstream = torch.ones(shape, device=device)
        torch.library.opcheck(torch.ops.sal_fast.minmax_normalize_backward, (upstream, maps.detach()))


def test_compile(device: torch.device) -> None:
    def loss(x: Tensor) -> Tensor:
        return (2 * ops.minmax_normalize(x + 1)).square().mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    x, y = (random_maps((6, 5, 7), torch.float32).to(device).requires_grad_() for _ in range(2))
    loss(x).backward()
    compiled(y).backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_autocast(device: torch.device) -> None:
    maps = random_maps((6, 7, 7), torch.bfloat16).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = ops.minmax_normalize(maps)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, ops.minmax_normalize(maps))


def test_second_derivative_is_refused(device: torch.device) -> None:
    maps = torch.randn(2, 3, 3, device=device, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.minmax_normalize(maps).square().sum(), maps, create_graph=True)
    with pytest.raises(NotImplementedError, match="only first derivatives"):
        grad.sum().backward()


def test_thread_counts_give_the_same_bits() -> None:
    maps = random_maps((300, 31, 17), torch.float32).requires_grad_()
    upstream = random_maps((300, 31, 17), torch.float32, seed=1)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            out = ops.minmax_normalize(maps)
            results.append((out.detach(), torch.autograd.grad(out, maps, upstream)[0]))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
