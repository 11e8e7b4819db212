"""The ops that run in plain torch, on every device."""

from __future__ import annotations

import torch

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
