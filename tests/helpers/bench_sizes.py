"""Sizes of the benchmarks at which all their cases run in a moment."""

from typing import Any

SMALL: dict[str, dict[str, Any]] = {
    "cam_head": {"batch": 3, "channels": 16, "classes": 5},
    "minmax_normalize": {"maps": 3, "side": 12},
    "saliency_loss": {"batch": 2, "frame": 32},
    "ssim": {"batch": 2, "side": 176, "depth": 12},
    "head_step": {"images": 9, "batch": 4, "channels": 16, "classes": 5},
    "cyborg_loss": {"batch": 2, "channels": 16, "classes": 5, "frame": 32},
    "topn_dice": {"batch": 2, "frame": 32},
    "probes": {"batch": 2, "depth": 18, "image": 64},
    "select": {"rows": 60, "classes": 4, "features": 8, "labelled": 5, "k": 10},
    "uncertainty": {"rows": 64, "columns": 10},
    "kcenter": {"rows": 200, "columns": 16, "labelled": 20, "picks": 12},
    "badge": {"rows": 200, "classes": 5, "columns": 16, "picks": 12},
    "growth": {"rows": 30, "picks": 3, "classes": 4, "columns": 8, "largest": 0},
    "step": {"batch_size": 2, "image_size": 48, "images": 5, "classes": 3},
    "score": {"image_size": 48, "images": 5, "classes": 3},
    "data": {"images": 33, "workers": 0},
    "run": {"epochs": 1, "image_size": 48, "criterion": "margin"},
    "predict": {"images": 5, "arch": "resnet18", "image_size": 48},
    "figures": {"maps": 3, "frame": 48},
    "crop": {"batch": 3, "stored": 4, "side": 20, "frame": 16},
}
