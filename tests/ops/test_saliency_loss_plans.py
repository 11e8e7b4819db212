"""A plan serves the calls that look alike, and those alone: nothing that a first call does may hide in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import jvp, vmap

from sal_fast import _native, ops
from sal_fast.ops.saliency_loss import KINDS, plans

pytestmark = [
    pytest.mark.skipif(_native.core() is None, reason="there is no native core"),
    # torch itself warns when its own transforms are imported
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
]
SHAPE = (5, 7, 7)


@pytest.fixture(autouse=True)
def no_plans() -> Iterator[None]:
    plans._plans.clear()
    yield
    plans._plans.clear()


def maps(seed: int, *, dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def both(cam: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """The loss and its gradient."""
    cam = cam.detach().requires_grad_()
    loss = ops.saliency_loss(cam, target, **options)
    upstream = torch.arange(1.0, loss.numel() + 1).reshape(loss.shape).to(loss.dtype)
    return loss.detach(), torch.autograd.grad(loss, cam, upstream)[0]


def close(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("some", [False, True], ids=["all have a map", "some have a map"])
@pytest.mark.parametrize("map_size", [None, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_one_plan_serves_other_values(kind: str, map_size: int | None, some: bool, reduction: str) -> None:
    for seed in range(3):
        cam, target = maps(seed), maps(seed + 10)
        has_map = maps(seed + 20)[:, 0, 0] > 0.5 if some else None
        options = {"kind": kind, "map_size": map_size, "reduction": reduction, "has_map": has_map}
        close(both(cam, target, **options), both(cam.double(), target.double(), **options))
        assert len(plans._plans) == 1


def test_calls_that_differ_have_plans_of_their_own() -> None:
    cam, target = maps(0), maps(1)
    calls: list[tuple[Tensor, Tensor, dict[str, Any]]] = [
        (cam, target, {}),
        (cam, target, {"kind": "mse"}),
        (cam, target, {"window": 3}),
        (cam, target, {"border": "zero"}),
        (cam, target, {"reduction": "none"}),
        (cam, target, {"has_map": torch.tensor([True, False, True, False, True])}),
        (cam, maps(1, shape=(5, 13, 9)), {}),
        (cam, target.to(torch.float16), {}),
        (cam[:3], target[:3], {}),
    ]
    for _ in range(2):
        for one, other, options in calls:
            close(both(one, other, **options), both(one.double(), other.double(), **options))
    assert len(plans._plans) == len(calls)


def test_what_does_not_lie_densely_takes_no_plan() -> None:
    cam, target = maps(0), maps(1)
    both(cam, target)
    expected = both(cam.mT.double(), target.double())
    close(both(cam.mT, target), expected)
    close(both(cam.mT.contiguous(), target.mT.contiguous().mT), expected)
    negative = torch._neg_view(cam)  # type: ignore[attr-defined]
    assert negative.is_contiguous()
    close(both(negative, target), both(-cam.double(), target.double()))
    assert len(plans._plans) == 1


def test_modes_of_torch_see_the_call_behind_a_plan() -> None:
    cam, target = maps(0), maps(1)
    for with_grad in (False, True):
        ops.saliency_loss(cam.clone().requires_grad_(with_grad), target)
    expected = ops.saliency_loss(cam.double(), target.double())
    many = vmap(lambda x: ops.saliency_loss(x, target))(torch.stack([cam, cam]))
    torch.testing.assert_close(many.double(), expected.expand(2), rtol=2e-4, atol=2e-5)
    gradient = both(cam.double(), target.double())[1]
    tangent = jvp(lambda x: ops.saliency_loss(x, target), (cam,), (torch.ones_like(cam),))[1]
    torch.testing.assert_close(tangent.double(), gradient.sum(), rtol=2e-4, atol=2e-5)
    with FakeTensorMode():
        fake = ops.saliency_loss(torch.empty(SHAPE), torch.empty(SHAPE))
    assert type(fake) is not Tensor
    assert ops.saliency_loss(cam.to("meta"), target.to("meta")).is_meta


def test_errors_are_the_same_behind_a_plan() -> None:
    cam, target = maps(0), maps(1)
    for _ in range(2):
        ops.saliency_loss(cam, target, map_size=9, window=3)
        with pytest.raises(TypeError, match="map_size must be an int, got float"):
            ops.saliency_loss(cam, target, map_size=9.0, window=3)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="border must be one of"):
            ops.saliency_loss(cam, target, border=["valid"])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="target must be a tensor or a BitMask"):
            ops.saliency_loss(cam, target.numpy())  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="has_map must have shape"):
            ops.saliency_loss(cam, target, has_map=torch.ones(4, dtype=torch.bool))


def test_gradient_modes_behind_a_plan() -> None:
    cam, target = maps(0).requires_grad_(), maps(1)
    for _ in range(2):
        assert ops.saliency_loss(cam, target).requires_grad
        with torch.no_grad():
            assert not ops.saliency_loss(cam, target).requires_grad
        with torch.inference_mode():
            assert ops.saliency_loss(cam, target).is_inference()
        assert not ops.saliency_loss(cam.detach(), target).requires_grad
        assert ops.saliency_loss(cam.detach(), target.clone().requires_grad_()).requires_grad


def test_a_graph_behind_a_plan_can_be_kept() -> None:
    target = maps(1)
    for _ in range(2):
        cam = maps(0).requires_grad_()
        loss = ops.saliency_loss(cam, target)
        first, second = (torch.autograd.grad(loss, cam, retain_graph=True)[0] for _ in range(2))
        assert first.equal(second)
        (gradient,) = torch.autograd.grad(loss, cam, create_graph=True)
        with pytest.raises(NotImplementedError, match="only first derivatives"):
            gradient.sum().backward()


def test_plans_do_not_pile_up() -> None:
    for images in range(1, plans._MOST + 10):
        both(maps(0, shape=(images, 2, 2)), maps(1, shape=(images, 2, 2)))
        assert len(plans._plans) <= plans._MOST
