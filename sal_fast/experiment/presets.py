"""Schedules that go with a data set; whatever the command line or --config names goes before them."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # the CYBORG reference's schedule, tuned on 1,821 images of two classes: the dataclass's own defaults
    "cyborg": {},
    # the paper's start sets (App. A); the schedule is cyborg's
    "cub200": {"start_fraction": 0.05},
    "ham10000": {"start_fraction": 0.05},
    "flowers102": {"start_fraction": 0.1},
    "imagenet-s": {"start_fraction": 0.1},
    "food201": {"start_fraction": 0.1},
    # minutes on two CPU cores
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


def default_preset(data: str) -> str:
    return data if data in PRESETS else "cyborg"
