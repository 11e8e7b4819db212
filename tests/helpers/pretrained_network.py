"""A small network with weights of its own, as a library has them. Tests load it as a plug-in.

The environment says where they can be had: KEPT is the file that a download left, and REACHED is set if there
is something to download from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sal_fast import plugins
from sal_fast.models.backbone import Backbone, Weights

Small = plugins.load("network", f"{Path(__file__).with_name('small_network.py')}:Small")


def state() -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        weights: dict[str, Tensor] = Small(7).state_dict()
    return weights


def read() -> Mapping[str, Tensor]:
    if "KEPT" not in os.environ and "REACHED" not in os.environ:
        raise OSError("no route to host")
    return state()


def kept() -> Path | None:
    return Path(os.environ["KEPT"]) if "KEPT" in os.environ else None


class Pretrained(Backbone):
    def __call__(self, classes: int) -> nn.Module:
        made: nn.Module = Small(classes)
        return made

    def weights(self) -> dict[str, Weights]:
        return {"DEFAULT": Weights("https://example.org/small.pth", read, kept)}


network: Any = Pretrained("small")
