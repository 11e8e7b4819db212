"""What no other file runs on a GPU: ops in plain torch, criteria and whole runs, on every device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from experiment_runs import TINY, kept, rounds

from sal_fast import ops, query
from sal_fast.experiment import resolve, run
from sal_fast.query import CRITERIA, Pool


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


@pytest.mark.parametrize("criterion", CRITERIA)
def test_criteria_ask_for_the_same_on_every_device(criterion: str, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(1)
    fields = [torch.randn(n, d, generator=generator) for n, d in ((80, 5), (80, 12), (7, 12))]
    here = query.select(criterion, Pool(80, *fields), 30, seed=2).positions
    there = query.select(criterion, Pool(80, *(x.to(device) for x in fields)), 30, seed=2).positions
    assert torch.equal(here, there.cpu())


@pytest.mark.parametrize(
    "options",
    [
        {"regime": "sal", "augment": "standard"},
        {"regime": "tait", "criterion": "badge"},
        {"regime": "sal-single", "criterion": "core-set", "map_size": 32},
        {"regime": "segmenter", "criterion": "entropy"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_whole_run(options: dict, device: torch.device, shared_folder: Path, tmp_path: Path) -> None:
    given = {**TINY, "data": str(shared_folder), "device": str(device), **options}
    if options["regime"] == "segmenter":
        given["segmenter_masks"] = str(shared_folder / "masks")
    whole = run(resolve({**given, "out": str(tmp_path / "whole")}))
    assert len(rounds(whole)) == 3
    assert json.loads((whole / "summary.json").read_text())["aulc_dice"] > 0
    again = run(resolve({**given, "out": str(tmp_path / "again")}))
    assert kept(again).keys() == kept(whole).keys()
    if device.type == "cpu":
        assert rounds(again) == rounds(whole)
