"""Criteria and whole runs on every device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from experiment_runs import TINY, kept, rounds

from sal_fast import plugins, query
from sal_fast.query import Labelled, Pool

# not on every machine with a GPU are all the libraries that the experiment needs
experiment = pytest.importorskip("sal_fast.experiment", exc_type=ImportError)


@pytest.mark.parametrize("criterion", plugins.names("criterion"))
def test_criteria_ask_for_the_same_on_every_device(criterion: str, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(1)
    fields = [torch.randn(n, d, generator=generator) for n, d in ((80, 5), (80, 12), (7, 12))]

    def picked(place: torch.device) -> torch.Tensor:
        logits, features, labelled = (values.to(place) for values in fields)
        known = Labelled(features=labelled)
        pool = Pool(list(map(str, range(80))), logits=logits, features=features, labelled=known)
        return query.select(criterion, pool, 30, seed=2).positions.cpu()

    assert torch.equal(picked(torch.device("cpu")), picked(device))


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
    whole = experiment.run(experiment.resolve({**given, "out": str(tmp_path / "whole")}))
    assert len(rounds(whole)) == 3
    assert json.loads((whole / "summary.json").read_text())["aulc_dice"] > 0
    again = experiment.run(experiment.resolve({**given, "out": str(tmp_path / "again")}))
    assert kept(again).keys() == kept(whole).keys()
    if device.type == "cpu":
        assert rounds(again) == rounds(whole)
