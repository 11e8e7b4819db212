"""Presets: the schedules that belong to data sets. The options that a user gives override them."""

from collections.abc import Mapping
from typing import Any

# What goes for data of one's own in any preset: a pool of 36 images would be asked for in 20 queries of two.
_OWN: dict[str, Any] = {"start_fraction": "auto", "query_fraction": "auto"}

PRESETS: dict[str, dict[str, Any]] = {
    # The schedule of the public CYBORG code, for 1,821 images of two classes. It is the options' defaults.
    "cyborg": {},
    # Data of one's own: people have few images, and a network that was trained on many needs fewer of them.
    "own": {**_OWN, "weights": "auto"},
    # Fine-tuning of a pretrained network. AdamW with decay 0.05, a cosine and a warm-up are how ConvNeXt and
    # Swin are trained (Liu et al. 2022, Table 5; Liu et al. 2021, App. A2). The new head has ten times the
    # rate of the rest, as in DeepLab (Chen et al. 2018, Sec. 4.1). A small rate keeps the features (Kumar et
    # al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution").
    "finetune": {
        **_OWN,
        "weights": "DEFAULT",
        "optimizer": "adamw",
        "lr": 1e-4,
        "head_lr": 1e-3,
        "weight_decay": 0.05,
        "schedule": "cosine",
        "warmup": 2,
        "epochs": 20,
        "batch_size": 32,
        "augment": "standard",
        "val_every": "auto",
    },
    # A linear head on features that stay as they are. Its problem is nearly convex, so a constant rate will
    # do: the first step of the schedule comes after the last epoch.
    "frozen": {
        **_OWN,
        "train": "head",
        "weights": "DEFAULT",
        "optimizer": "adamw",
        "lr": 3e-3,
        "weight_decay": 1e-4,
        "lr_step": 60,
        "epochs": 60,
        "batch_size": 64,
        "val_every": "auto",
    },
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
_OF_NO_DATA = ("cyborg", "own", "finetune", "frozen")


def is_own(data: str) -> bool:
    """True for data of one's own: a folder, a manifest or a plug-in, but no data set that has a preset."""
    return data not in PRESETS or data in _OF_NO_DATA


def named(preset: str, data: str) -> str:
    """The name of the preset. `auto` is the data set's own, or `own` if the data set has none."""
    if preset != AUTO:
        return preset
    return "own" if is_own(data) else data


def options(preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a preset sets, where `given` are the options that the user gave.

    A preset's output stride is for ResNets. Other networks have a fixed stride, and get the default.
    """
    chosen = dict(PRESETS.get(preset, {}))
    if not str(given.get("arch", "resnet")).startswith("resnet"):
        chosen.pop("output_stride", None)
    return chosen
