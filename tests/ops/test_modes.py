"""Every op in every mode of torch: transforms, forward mode, negative views, fake tensors, export, compile.

The oracle is the op in float64 without any of these. Where the reference of an op is what runs in float64,
other tests hold the kernels to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import grad, jacfwd, jacrev, jvp, vmap

from sal_fast import ops

Function = Callable[[Tensor], Tensor]
# torch itself warns when its own transforms are imported
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


class Case(NamedTuple):
    """An op as a function of one argument, and that argument in float64."""

    function: Function
    at: Tensor


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


IMAGES, OTHERS = numbers(3, 2, 13, 16), numbers(3, 2, 13, 16, seed=1)
FEATURES, WEIGHT, BIAS = numbers(3, 6, 5, 7) - 0.3, numbers(4, 6, seed=1) - 0.5, numbers(4, seed=2)
TARGET = torch.tensor([0, 3, 2])
CAMS, MASKS = numbers(3, 14, 14), numbers(3, 28, 28, seed=1) > 0.6
LOGITS = numbers(3, 4) * 3
BYTES = (numbers(3, 9, 8, 3) * 255).to(torch.uint8)
COLOR = torch.eye(3, 4, dtype=torch.float32)


def alike(value: Tensor, x: Tensor) -> Tensor:
    return value.to(x.dtype)


DIFFERENTIABLE = {
    "ssim": Case(lambda x: ops.ssim(x, alike(OTHERS, x), border="zero"), IMAGES),
    "ssim of each": Case(lambda x: ops.ssim(alike(OTHERS, x), x, reduction="none"), IMAGES),
    "ssim, a mask": Case(lambda x: ops.ssim(x, alike(OTHERS, x), mask=IMAGES[:, 0]), IMAGES),
    "ssim_map": Case(lambda x: ops.ssim_map(x, alike(OTHERS, x), window=7).mean((1, 2)), IMAGES),
    "ssim of volumes": Case(
        lambda x: ops.ssim(x[:, None], alike(OTHERS, x)[:, None], window=1, border="reflect"), IMAGES
    ),
    "ms_ssim": Case(
        lambda x: ops.ms_ssim(x, alike(OTHERS, x) / 2 + x / 2, window=3, weights=(0.4, 0.6)), IMAGES
    ),
    "cam": Case(lambda x: ops.cam(x, alike(WEIGHT, x), TARGET), FEATURES),
    "cam, the weight": Case(lambda w: ops.cam(alike(FEATURES, w), w, TARGET), WEIGHT),
    "cam, gradcam++": Case(lambda x: ops.cam(x, alike(WEIGHT, x), TARGET, probe="gradcam++"), FEATURES),
    "cam, normalised": Case(lambda x: ops.cam(x, alike(WEIGHT, x), TARGET, normalize=True), FEATURES),
    "cam_head": Case(lambda x: ops.cam_head(x, alike(WEIGHT, x), alike(BIAS, x), TARGET).logits, FEATURES),
    "cam_head, predicted": Case(lambda x: ops.cam_head(x, alike(WEIGHT, x), None).cam, FEATURES),
    "saliency_loss": Case(lambda x: ops.saliency_loss(x, MASKS), CAMS),
    "saliency_loss, bits": Case(lambda x: ops.saliency_loss(x, ops.BitMask.pack(MASKS)), CAMS),
    "saliency_loss, mse": Case(lambda x: ops.saliency_loss(x, MASKS, kind="mse"), CAMS),
    "cyborg_loss": Case(
        lambda x: ops.cyborg_loss(alike(LOGITS, x), x, TARGET, MASKS, alpha=0.3), CAMS
    ),
    "cyborg_loss, the logits": Case(
        lambda x: ops.cyborg_loss(x, alike(CAMS, x), TARGET, MASKS, alpha=0.3), LOGITS
    ),
    "minmax_normalize": Case(ops.minmax_normalize, CAMS),
    "uncertainty, entropy": Case(lambda x: ops.uncertainty(x, "entropy"), LOGITS),
    "uncertainty, margin": Case(lambda x: ops.uncertainty(x, "margin"), LOGITS),
    "uncertainty, least-confidence": Case(lambda x: ops.uncertainty(x, "least-confidence"), LOGITS),
}  # fmt: skip
OTHERS_OF_ONE = {
    "topn_mask": Case(lambda x: ops.topn_mask(x, 20), CAMS),
    "topn_dice": Case(lambda x: ops.topn_dice(x, MASKS).dice, CAMS),
    "dice": Case(lambda x: ops.dice(x > 0.5, MASKS[:, :14, :14]), CAMS),
    "is_flat": Case(ops.is_flat, CAMS),
    "says_where": Case(lambda x: ops.says_where(x, (7, 7)), CAMS),
    "BitMask": Case(lambda x: ops.BitMask.pack(x > 0.5).unpack(), CAMS),
    "crop_images": Case(lambda x: ops.crop_images(BYTES, box=x[:, 0, :4].float(), size=6, color=COLOR), CAMS),
    "crop_masks": Case(lambda x: ops.crop_masks(MASKS, box=x[:, 0, :4].float(), size=6), CAMS),
}
ALL = DIFFERENTIABLE | OTHERS_OF_ONE
every = pytest.mark.parametrize("name", ALL)
differentiable = pytest.mark.parametrize("name", DIFFERENTIABLE)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def close(value: Any, expected: Tensor) -> None:
    torch.testing.assert_close(value.double(), expected.double(), rtol=2e-4, atol=2e-5, equal_nan=True)


def squared(function: Function) -> Function:
    return lambda x: (function(x) ** 2).sum()


def derivatives(name: str) -> Tensor:
    """The Jacobian in float64, a row at a time by plain autograd."""
    function, at = DIFFERENTIABLE[name]
    x = at.clone().requires_grad_()
    value = function(x)
    rows = [torch.autograd.grad(one, x, retain_graph=True)[0] for one in value.flatten()]
    return torch.stack(rows).view(*value.shape, *at.shape)


@dtypes
@differentiable
def test_forward_mode(name: str, dtype: torch.dtype) -> None:
    function, at = DIFFERENTIABLE[name]
    direction = numbers(*at.shape, seed=5)
    expected = (derivatives(name) * direction).flatten(-at.ndim).sum(-1)
    x, v = at.to(dtype), direction.to(dtype)
    value, tangent = jvp(function, (x,), (v,))
    close(value, function(at))
    close(tangent, expected)
    with forward_ad.dual_level():
        close(forward_ad.unpack_dual(function(forward_ad.make_dual(x, v))).tangent, expected)
    with forward_ad.dual_level():  # of tensors without a tangent
        close(function(x), function(at))


@dtypes
@differentiable
def test_transforms(name: str, dtype: torch.dtype) -> None:
    function, at = DIFFERENTIABLE[name]
    x, jacobian = at.to(dtype), derivatives(name)
    upstream = 2 * function(at)
    expected = (upstream[(..., *[None] * at.ndim)] * jacobian).reshape(-1, *at.shape).sum(0)
    close(grad(squared(function))(x), expected)
    close(jacrev(function)(x), jacobian)
    close(jacfwd(function)(x), jacobian)
    close(vmap(grad(squared(function)))(torch.stack([x, x])), torch.stack([expected, expected]))


@every
def test_a_batch_of_calls(name: str) -> None:
    function, at = ALL[name]
    several = torch.stack([at, 0.9 * at + 0.01, at.flip(0)]).float()
    close(vmap(function)(several), torch.stack([function(one.double()) for one in several]))


@differentiable
def test_autograd_through_a_batch_of_calls(name: str) -> None:
    function, at = DIFFERENTIABLE[name]
    several = torch.stack([at, at.flip(0)])
    single, double = several.float().requires_grad_(), several.clone().requires_grad_()
    squared(vmap(function))(single).backward()
    sum(squared(function)(one) for one in double).backward()  # type: ignore[union-attr]
    assert single.grad is not None
    assert double.grad is not None
    close(single.grad, double.grad)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's, as it runs a backward row by row
@differentiable
def test_a_batch_of_gradients(name: str) -> None:
    """A graph that was recorded plainly, and a backward under vmap, as in `jacobian(..., vectorize=True)`."""
    function, at = DIFFERENTIABLE[name]
    x = at.float().requires_grad_()
    value = function(x)
    upstream = numbers(3, *value.shape, seed=7).float()
    (found,) = torch.autograd.grad(value, x, upstream, is_grads_batched=True)
    whole = at.clone().requires_grad_()
    one = function(whole)
    for given, gradient in zip(upstream.double(), found, strict=True):
        close(gradient, torch.autograd.grad(one, whole, given, retain_graph=True)[0])


@pytest.mark.parametrize("name", ["minmax_normalize", "ssim", "saliency_loss, mse", "uncertainty, entropy"])
def test_second_derivatives_by_transforms(name: str) -> None:
    """`torch.func` differentiates the reference as often as it likes."""
    function, at = DIFFERENTIABLE[name]
    gradient, direction = grad(squared(function)), numbers(*at.shape, seed=9) - 0.5
    step = 1e-6 * direction
    expected = (gradient(at + step) - gradient(at - step)) / 2e-6
    found = jvp(gradient, (at.float(),), (direction.float(),))[1]
    assert (found - expected).norm() < 1e-3 * expected.norm()


@every
def test_views_with_the_negative_bit(name: str) -> None:
    """The imaginary part of a conjugate is a view that says `minus`; its memory has the other sign."""
    function, at = ALL[name]
    view = torch.complex(torch.zeros_like(at), -at).to(torch.complex64).conj().imag
    assert view.is_neg()
    close(function(view), function(at))
    if name in DIFFERENTIABLE:
        leaf = (-at).float().requires_grad_()
        squared(function)(torch.complex(torch.zeros_like(leaf), leaf).conj().imag).backward()
        whole = at.clone().requires_grad_()
        squared(function)(whole).backward()
        assert leaf.grad is not None
        assert whole.grad is not None
        close(-leaf.grad, whole.grad)


@every
def test_fake_tensors(name: str) -> None:
    """Shapes, dtypes and devices without values, in eager mode."""
    function, at = ALL[name]
    real = function(at.float())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = function(mode.from_tensor(at.float()))
    assert (fake.shape, fake.dtype, fake.device) == (real.shape, real.dtype, real.device)


class Module(torch.nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@every
def test_export_and_compile(name: str) -> None:
    function, at = ALL[name]
    x = at.float()
    exported = torch.export.export(Module(function), (x,), strict=False)
    close(exported.module()(x), function(at))
    close(torch.compile(function, fullgraph=True, backend="aot_eager")(x), function(at))


BATCHES: dict[str, Callable[..., Tensor]] = {
    "ssim": lambda x, y: ops.ssim(x[:, None], y[:, None]),
    "ssim_map": lambda x, y: ops.ssim_map(x[:, None], y[:, None]),
    "ms_ssim": lambda x, y: ops.ms_ssim(x[:, None], y[:, None], window=3, weights=(0.4, 0.6)),
    "cam": lambda x, y: ops.cam(x[:, None], y[0, :4, :1], x.new_zeros(x.shape[0]).long()),
    "cam_head": lambda x, y: ops.cam_head(x[:, None], y[0, :4, :1], None).cam,
    "saliency_loss": lambda x, y: ops.saliency_loss(x, y > 0.5),
    "cyborg_loss": lambda x, y: ops.cyborg_loss(
        x[:, 0, :4], x, x.new_zeros(x.shape[0]).long(), y > 0.5, alpha=0.5
    ),
    "minmax_normalize": lambda x, y: ops.minmax_normalize(x),
    "uncertainty": lambda x, y: ops.uncertainty(x[:, 0], "entropy"),
    "topn_mask": lambda x, y: ops.topn_mask(x, 20),
    "topn_dice": lambda x, y: ops.topn_dice(x, y > 0.5).dice,
    "dice": lambda x, y: ops.dice(x > 0.5, y > 0.5),
    "BitMask": lambda x, y: ops.BitMask.pack(x > 0.5).unpack(),
    "crop_masks": lambda x, y: ops.crop_masks(x > 0.5, box=y[:, 0, :4].float(), size=6),
}


class OfTwo(torch.nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.function(x, y)


@pytest.mark.parametrize("name", BATCHES)
def test_export_with_any_batch(name: str) -> None:
    function = BATCHES[name]
    batch = torch.export.Dim("batch", min=2, max=64)
    given = numbers(4, 14, 14).float(), numbers(4, 14, 14, seed=1).float()
    shapes = ({0: batch}, {0: batch})
    exported = torch.export.export(OfTwo(function), given, dynamic_shapes=shapes, strict=False).module()
    for size in (2, 5):
        x, y = numbers(size, 14, 14, seed=2), numbers(size, 14, 14, seed=3)
        close(exported(x.float(), y.float()), function(x, y))


ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "permuted": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "with gaps": lambda x: torch.stack([x, x + 1], -1).flatten(-2)[..., ::2],
    "flipped twice": lambda x: x.flip(0, -1).contiguous().flip(0, -1),
    "a slice": lambda x: torch.cat([x, x, x])[len(x) : 2 * len(x)],
    "with an offset": lambda x: torch.cat([x.flatten().new_zeros(1), x.flatten()])[1:].view(x.shape),
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
@every
def test_memory_orders(name: str, order: str) -> None:
    function, at = ALL[name]
    x = ORDERS[order](at.float())
    close(function(x), function(at))
    if name in DIFFERENTIABLE:
        leaf, whole = x.detach().requires_grad_(), at.clone().requires_grad_()
        squared(function)(leaf).backward()
        squared(function)(whole).backward()
        assert leaf.grad is not None
        assert whole.grad is not None
        close(leaf.grad, whole.grad)


@differentiable
def test_autocast_changes_nothing(name: str) -> None:
    """Neither where the kernels run, nor where the reference does."""
    function, at = DIFFERENTIABLE[name]

    def within(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return function(x)

    x = at.float()
    close(within(x), function(at))
    close(grad(squared(within))(x), grad(squared(function))(at))


@pytest.mark.parametrize("kind", ["margin", "least-confidence", "entropy"])
def test_equal_logits_in_a_transform(kind: Any) -> None:
    """The lowest of equal classes counts as the first, and the next one as the second, as in autograd."""
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0, 3.0], [2.0, 1.0, 1.0, 1.0, 0.0]])
    leaf = logits.clone().requires_grad_()
    ops.uncertainty(leaf, kind).sum().backward()
    assert leaf.grad is not None
    close(grad(lambda x: ops.uncertainty(x, kind).sum())(logits), leaf.grad)
