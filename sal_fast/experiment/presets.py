"""Presets: the schedules that belong to data sets. The options that a user gives override them."""

from collections.abc import Mapping
from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # The schedule of the public CYBORG code, for 1,821 images of two classes. It is the options' defaults.
    "cyborg": {},
    # These have the paper's start sets (App. A) and the schedule of cyborg.
    "cub200": {"start_fraction": 0.05},
    "ham10000": {"start_fraction": 0.05},
    "flowers102": {"start_fraction": 0.1},
    "imagenet-s": {"start_fraction": 0.1},
    "food201": {"start_fraction": 0.1},
    # A run takes minutes on two CPU cores.
    "builtin": {
        "arch": "resnet18",
        "image_size": 64,
        "output_stride": 16,
        "epochs": 25,
        "batch_size": 16,
        "lr": 0.02,
        "lr_step": 18,
        "start_fraction": 0.1,
        "query_fraction": 0.1,
        "stop_fraction": 0.5,
        "human_budget": 0.2,
    },
}
AUTO = "auto"


def named(preset: str, data: str) -> str:
    """The name of the preset. `auto` is the data set's own, or `cyborg` if the data set has none."""
    if preset != AUTO:
        return preset
    return data if data in PRESETS else "cyborg"


def options(preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a preset sets, where `given` are the options that the user gave.

    A preset's output stride is for ResNets. Other networks have a fixed stride, and get the default.
    """
    chosen = dict(PRESETS.get(preset, {}))
    if not str(given.get("arch", "resnet")).startswith("resnet"):
        chosen.pop("output_stride", None)
    return chosen
