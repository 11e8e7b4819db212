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
from small_network import Small
from torch import Tensor, nn

from sal_fast.models.backbone import Backbone, Weights


def state() -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        return Small(7).state_dict()


def read() -> Mapping[str, Tensor]:
    if "KEPT" not in os.environ and "REACHED" not in os.environ:
        raise OSError("no route to host")
    return state()


def kept() -> Path | None:
    return Path(os.environ["KEPT"]) if "KEPT" in os.environ else None


class Pretrained(Backbone):
    def __call__(self, classes: int) -> nn.Module:
        return Small(classes)

    def weights(self) -> dict[str, Weights]:
        return {"DEFAULT": Weights("https://example.org/small.pth", read, kept)}


network: Any = Pretrained("small")
