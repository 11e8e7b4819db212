"""sal_fast.ops.cyborg_loss: Equation 1, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast import ops


def example(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """logits, CAMs, labels, masks, has_map."""
    generator = torch.Generator().manual_seed(11)
    logits = torch.randn(4, 5, dtype=torch.float64, generator=generator).to(dtype)
    cam = torch.randn(4, 7, 7, dtype=torch.float64, generator=generator).to(dtype)
    masks = torch.rand(4, 14, 14, generator=generator) > 0.6
    return logits, cam, torch.tensor([0, 4, 2, 2]), masks, torch.tensor([True, False, True, False])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("options", [{}, {"map_size": 14}, {"kind": "mse"}, {"border": "zero", "window": 3}])
def test_equation_1(dtype: torch.dtype, tolerance: float, options: dict) -> None:
    logits, cam, labels, masks, has_map = example(dtype)
    saliency = ops.saliency_loss(cam.double(), masks, reduction="none", **options)
    by_hand = 0.0
    for i in range(4):
        ce = -float(torch.log(torch.exp(logits[i, labels[i]]) / torch.exp(logits[i]).sum()))
        by_hand += 0.3 * ce + 0.7 * float(saliency[i]) * bool(has_map[i])
    got = ops.cyborg_loss(logits, cam, labels, masks, alpha=0.3, has_map=has_map, **options)
    assert float(got) == pytest.approx(by_hand / 4, abs=tolerance)


def test_alpha_1_is_cross_entropy_and_0_saliency() -> None:
    logits, cam, labels, masks, has_map = example()
    alone = ops.cyborg_loss(logits, cam, labels, masks, alpha=1.0, has_map=has_map)
    assert float(alone) == pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-12)
    none = ops.cyborg_loss(logits, cam, labels, masks, alpha=0.0)
    assert float(none) == pytest.approx(float(ops.saliency_loss(cam, masks)), abs=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weight", [None, [0.5, 3.0, 0.0, 1.0, 2.0]])
def test_class_weights_and_label_smoothing(
    dtype: torch.dtype, tolerance: float, smoothing: float, weight: list[float] | None
) -> None:
    logits, cam, labels, masks, has_map = example(dtype)
    given = None if weight is None else torch.tensor(weight)
    got = ops.cyborg_loss(
        logits, cam, labels, masks, alpha=0.3, has_map=has_map, class_weight=given, label_smoothing=smoothing
    )
    w = [1.0] * 5 if weight is None else weight
    by_hand = 0.7 * 4 * float(ops.saliency_loss(cam.double(), masks, has_map=has_map))
    for i in range(4):
        scale = math.log(sum(math.exp(x) for x in logits[i].tolist()))
        minus_log = [scale - x for x in logits[i].tolist()]
        own = w[labels[i]] * minus_log[labels[i]]
        spread = sum(one * other for one, other in zip(w, minus_log, strict=True)) / 5
        by_hand += 0.3 * ((1 - smoothing) * own + smoothing * spread)
    assert float(got) == pytest.approx(by_hand / 4, abs=tolerance)


def test_without_weights_and_smoothing_the_loss_has_the_same_bits() -> None:
    logits, cam, labels, masks, has_map = example(torch.float32)
    plain = ops.cyborg_loss(logits, cam, labels, masks, alpha=0.3, has_map=has_map)
    sum_of_both = 0.3 * (F.cross_entropy(logits, labels, reduction="sum") / 4)
    sum_of_both = sum_of_both + 0.7 * ops.saliency_loss(cam, masks, has_map=has_map)
    assert torch.equal(plain, sum_of_both)
    ones = torch.ones(5)
    weighted = ops.cyborg_loss(logits, cam, labels, masks, alpha=0.3, has_map=has_map, class_weight=ones)
    torch.testing.assert_close(weighted, plain)


def test_gradients_with_weights_against_finite_differences() -> None:
    logits, cam, labels, masks, has_map = example()
    weight = torch.tensor([0.5, 3.0, 0.0, 1.0, 2.0], requires_grad=True)

    def loss(logits: Tensor) -> Tensor:
        return ops.cyborg_loss(
            logits, cam, labels, masks, alpha=0.3, has_map=has_map, class_weight=weight, label_smoothing=0.2
        )

    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(),))
    loss(logits).backward()
    assert weight.grad is None, "the weights are constants"


def test_gradients(device: torch.device) -> None:
    """alpha of the one to the logits, 1 - alpha of the other to the CAM."""
    logits, cam, labels, masks, has_map = (tensor.to(device) for tensor in example(torch.float32))
    logits.requires_grad_()
    cam.requires_grad_()
    ops.cyborg_loss(logits, cam, labels, ops.BitMask.pack(masks), alpha=0.3, has_map=has_map).backward()
    parts = 0.3 * F.cross_entropy(logits, labels), 0.7 * ops.saliency_loss(cam, masks, has_map=has_map)
    for tensor, part in zip((logits, cam), parts, strict=True):
        torch.testing.assert_close(tensor.grad, torch.autograd.grad(part, tensor)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_under_autocast(dtype: torch.dtype, device: torch.device) -> None:
    logits, cam, labels, masks, has_map = (tensor.to(device) for tensor in example(torch.float32))
    logits, cam = logits.to(dtype).requires_grad_(), cam.to(dtype).requires_grad_()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        got = ops.cyborg_loss(logits, cam, labels, masks, alpha=0.3, has_map=has_map)
    expected = ops.cyborg_loss(logits.float(), cam.float(), labels, masks, alpha=0.3, has_map=has_map)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected)
    got.backward()
    assert logits.grad is not None
    assert logits.grad.dtype == dtype


def test_compile(device: torch.device) -> None:
    logits, cam, labels, masks, has_map = (tensor.to(device) for tensor in example(torch.float32))

    def loss(logits: Tensor, cam: Tensor) -> Tensor:
        weight = torch.arange(5.0, device=device)
        return ops.cyborg_loss(
            logits, cam, labels, masks, alpha=0.3, has_map=has_map, map_size=14, class_weight=weight
        )

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, cam), loss(logits, cam))


def test_empty_batch() -> None:
    none = torch.empty(0, dtype=torch.int64)
    loss = ops.cyborg_loss(torch.empty(0, 3), torch.empty(0, 7, 7), none, torch.empty(0, 14, 14), alpha=0.5)
    assert float(loss) == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"alpha": 1.5}, ValueError, r"alpha must lie in \[0, 1\], got 1.5"),
        ({"label_smoothing": -0.1}, ValueError, r"label_smoothing must lie in \[0, 1\], got -0.1"),
        ({"class_weight": torch.ones(4)}, ValueError, r"class_weight must have shape \[5\], got \[4\]"),
        ({"class_weight": torch.ones(5).long()}, TypeError, "class_weight must be of a floating dtype"),
        ({"class_weight": torch.tensor([1.0, 2, -3, 1, 1])}, ValueError, r"not negative, got -3\.0"),
        ({"class_weight": torch.full((5,), torch.nan)}, ValueError, "must be finite .* got nan"),
        ({"labels": torch.tensor([0, 1, 2, 5])}, ValueError, r"labels must lie in 0\.\.4, got 0\.\.5"),
        ({"labels": torch.zeros(4)}, TypeError, r"must be int64, or \[B, K\] if soft, got torch.float32"),
        ({"labels": torch.zeros(3).long()}, ValueError, r"labels must have shape \[4\], got \[3\]"),
        ({"logits": torch.rand(3, 5)}, ValueError, r"logits must have shape \[4, \*\], got \[3, 5\]"),
        ({"logits": torch.rand(4, 5, device="meta")}, ValueError, "logits on meta, cam on cpu"),
        ({"target": torch.zeros(4, 14, 14).long()}, TypeError, "bool, uint8 or floating"),
    ],
)
def test_errors(change: dict, error: type[Exception], message: str) -> None:
    logits, cam, labels, masks, _ = example(torch.float32)
    arguments = {"logits": logits, "cam": cam, "labels": labels, "target": masks, "alpha": 0.5} | change
    call: Callable[..., Tensor] = ops.cyborg_loss
    with pytest.raises(error, match=message):
        call(**arguments)
