"""Criteria and whole runs on every device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from experiment_runs import TINY, kept, rounds

import sal_fast
from sal_fast import plugins, query
from sal_fast.query import Labelled, Pool

# not on every machine with a GPU are all the libraries that the experiment needs
pytest.importorskip("sal_fast.experiment.run", exc_type=ImportError)


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
# tests/experiment runs all this on a CPU, too
ON_A_GPU = [
    pytest.param("cpu", marks=pytest.mark.full),
    pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU]),
]


@pytest.mark.parametrize("criterion", plugins.names("criterion"))
def test_criteria_ask_for_the_same_on_every_device(criterion: str, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(1)
    ids = [str(number) for number in range(80)]
    fields = [torch.randn(n, d, generator=generator) for n, d in ((80, 5), (80, 12), (7, 12))]

    def pool(logits: torch.Tensor, features: torch.Tensor, labelled: torch.Tensor) -> Pool:
        return Pool(ids, logits=logits, features=features, labelled=Labelled(features=labelled))

    here = query.select(criterion, pool(*fields), 30, seed=2).positions
    there = query.select(criterion, pool(*(x.to(device) for x in fields)), 30, seed=2).positions
    assert torch.equal(here.cpu(), there.cpu())


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
@pytest.mark.parametrize("device", ON_A_GPU, indirect=True)
def test_a_whole_run(options: dict, device: torch.device, shared_folder: Path, tmp_path: Path) -> None:
    given = {**TINY, "data": str(shared_folder), "device": str(device), **options}
    if options["regime"] == "segmenter":
        given["segmenter_masks"] = str(shared_folder / "masks")
    whole = sal_fast.run(sal_fast.Config.of({**given, "out": str(tmp_path / "whole")})).path
    assert len(rounds(whole)) == 3
    assert json.loads((whole / "summary.json").read_text())["aulc_dice"] > 0
    again = sal_fast.run(sal_fast.Config.of({**given, "out": str(tmp_path / "again")})).path
    assert kept(again).keys() == kept(whole).keys()
    if device.type == "cpu":
        assert rounds(again) == rounds(whole)
