"""The main ops at the paper's sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from sal_fast.bench import suite
from sal_fast.bench.suite import Case

CHANNELS, STRIDE = 2048, 32  # of ResNet-50
KEPT = ("sal_fast", "eager", "topk")


@dataclass(frozen=True)
class Benchmark(suite.Benchmark):
    """The main ops against eager torch, with gradients where training needs them.

    The sizes are those of ResNet-50 on CUB-200. `sal-fast bench <op>` has every variant of an op.
    """

    LEAST: ClassVar = {"image_size": 32, "classes": 2}
    SMALL: ClassVar = {"batch_size": 2, "image_size": 64, "classes": 5, "rows": 50}

    batch_size: int = 20
    """Images."""
    image_size: int = 224
    """Pixels a side. The features have a 32nd of it."""
    classes: int = 200
    """Outputs of the linear layer."""
    rows: int = 5000
    """Rows of logits, for uncertainty."""
    dtype: suite.Precision = "float32"
    """The type of features and logits."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        side = max(3, self.image_size // STRIDE)
        batch = {"batch": self.batch_size}
        features = {**batch, "channels": CHANNELS, "side": side, "classes": self.classes}
        maps = {**batch, "side": side, "frame": self.image_size}
        crops = {
            "stored": 2 * self.batch_size,
            "side": 256 * self.image_size // 224,
            "frame": self.image_size,
        }
        chosen: dict[str, tuple[str, dict[str, Any]]] = {
            "cam_head": ("nchw-forward-backward", features),
            "saliency_loss": (f"{side}-bool-forward-backward", maps),
            "cyborg_loss": (f"head-{side}", {**features, "frame": self.image_size, "depth": 18}),
            "ssim": ("forward-backward-xy", {**batch, "side": self.image_size}),
            "topn_dice": ("bool", maps),
            "uncertainty": ("margin-forward", {"rows": self.rows, "columns": self.classes}),
            "crop": ("crop", {**batch, **crops}),
        }
        for op, (name, sizes) in chosen.items():
            for case in suite.load(op)(**sizes | {"dtype": self.dtype}).cases(device):
                if case.name == name:
                    variants = {key: variant for key, variant in case.variants.items() if key in KEPT}
                    yield replace(case, name=op, variants=variants)
