"""The ops together, on every device; memory whose indices need 64 bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sal_fast import ops


def test_ops_agree_with_float64_on_the_cpu(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(6, 16, 7, 7, dtype=torch.float64, generator=generator)
    weight = torch.randn(5, 16, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    masks = torch.rand(6, 28, 28, generator=generator) > 0.7

    def loss_and_gradients(place: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
        f, w = (x.detach().to(place, dtype, copy=True).requires_grad_() for x in (features, weight))
        total = torch.zeros((), device=place, dtype=dtype)
        for probe in ops.PROBES:
            cam = ops.cam(f, w, labels.to(place), probe=probe)
            logits = f.mean((2, 3)) @ w.T
            total = total + ops.cyborg_loss(logits, cam, labels.to(place), masks.to(place), alpha=0.4)
        total.backward()
        assert f.grad is not None
        assert w.grad is not None
        return [x.detach().double().cpu() for x in (total, f.grad, w.grad)]

    exact = loss_and_gradients(torch.device("cpu"), torch.float64)
    for got, expected in zip(loss_and_gradients(device, torch.float32), exact, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    cam = ops.cam(features, weight, labels)
    here = ops.topn_dice(cam.to(device, torch.float64), masks.to(device))
    assert torch.equal(here.hits.cpu(), ops.topn_dice(cam, masks).hits)


def far_apart(rows: Tensor) -> Tensor:
    """The same two rows, 2^31 elements apart; what lies between is never touched."""
    apart = (1 << 31) + 64
    memory = torch.empty(apart + rows[0].numel(), dtype=rows.dtype, device=rows.device)
    view = memory.as_strided(rows.shape, (apart, *rows[0].contiguous().stride()))
    return view.copy_(rows)


WEIGHT = torch.randn(5, 16, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("shape", "run"),
    [
        ((2, 40), ops.uncertainty),
        ((2, 16, 7, 7), lambda x: ops.cam(x, WEIGHT.to(x.device), torch.tensor([1, 3], device=x.device))),
        ((2, 3, 20, 20), lambda x: ops.ssim(x, x.flip(0))),
        ((2, 32, 32), lambda x: ops.saliency_loss(WEIGHT[:2, :9].view(2, 3, 3).to(x.device), x, map_size=32)),
        ((2, 64, 64), lambda x: ops.saliency_loss(WEIGHT[:2, :9].view(2, 3, 3).to(x.device), x, map_size=64)),
        ((2, 20, 33), lambda x: ops.topn_mask(x, 200)),
    ],
    ids=["uncertainty", "cam", "ssim", "saliency_loss-few", "saliency_loss-many", "topn_mask"],
)
def test_indices_of_64_bits(
    shape: tuple[int, ...], run: Callable[[Tensor], Tensor], device: torch.device
) -> None:
    near = torch.rand(shape, generator=torch.Generator().manual_seed(3)).to(device, torch.bfloat16)
    far = far_apart(near)
    wanted = len(shape) != 3  # saliency_loss has no gradient to its target
    expected, got = (run(x.requires_grad_(wanted)) for x in (near, far))
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    if wanted:
        assert torch.equal(*(torch.autograd.grad(y.sum(), x)[0] for y, x in ((got, far), (expected, near))))


def test_masks_whose_indices_need_64_bits(device: torch.device) -> None:
    near = torch.rand(2, 20, 33, generator=torch.Generator().manual_seed(4)).to(device) > 0.6
    far, cam = far_apart(near), WEIGHT[:2, :9].view(2, 3, 3).to(device)
    expected, got = (ops.topn_dice(cam, mask) for mask in (near, far))
    assert torch.equal(got.hits, expected.hits)
    assert torch.equal(got.n, expected.n)
    assert torch.equal(ops.dice(far, near.flip(2)), ops.dice(near, near.flip(2)))


def test_stored_images_whose_indices_need_64_bits(device: torch.device) -> None:
    draws = torch.Generator().manual_seed(5)
    near = torch.randint(0, 256, (2, 20, 33, 3), dtype=torch.uint8, generator=draws).to(device)
    far, color = far_apart(near), torch.eye(3, 4, device=device)
    for size in ((20, 33), (9, 40)):
        expected, got = (ops.crop_images(images, size=size, color=color) for images in (near, far))
        assert torch.equal(got, expected)
    masks = near[..., 0].contiguous()
    assert torch.equal(ops.crop_masks(far_apart(masks), size=9), ops.crop_masks(masks, size=9))
