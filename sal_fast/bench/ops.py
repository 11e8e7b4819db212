"""The main ops at the paper's sizes against eager torch; `python -m benchmarks.run` goes into depth."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.bench import pool, timing, usual
from sal_fast.bench.timing import Call, Precision, Ratio
from sal_fast.bench.usual import with_gradient
from sal_fast.data.augment import plain, stored_size

ALPHA = 0.5
CHANNELS, STRIDE = 2048, 32  # ResNet-50's


@dataclass(frozen=True)
class Options(timing.Options):
    """The main ops, forward and backward where training needs it, against eager torch.

    Sizes are those of ResNet-50 on CUB-200. The same inputs each time, so small ones come from the cache;
    `python -m benchmarks.run` of the repository rotates them and knows every variant.
    """

    LEAST: ClassVar = {"image_size": 32, "classes": 2}

    batch_size: int = 20
    """Images."""
    image_size: int = 224
    """Pixels a side; the features have a 32nd of it."""
    classes: int = 200
    """Rows of the linear layer."""
    rows: int = 5000
    """Of logits, for uncertainty."""
    precision: Precision = "float32"
    """Of features and logits."""


Case = tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]  # ours, eager, what they are given


def measure(options: Options, device: torch.device) -> dict[str, Any]:
    load = os.getloadavg()[0]
    made = _cases(options, device)
    variants: dict[str, Call] = {}
    for name, (ours, eager, given) in made.items():
        _verify(ours(*given), eager(*given), options.precision)  # no speed of a wrong result
        variants |= {name: partial(ours, *given), f"{name}, eager": partial(eager, *given)}
    timed = timing.in_turn("ops", variants, device, options)
    ratios = [Ratio(f"{name}, eager", name) for name in made]
    items = dict.fromkeys(timed, 1)
    return timing.document("ops", device, options, load, timed, ratios, unit="calls", items=items)


def _cases(options: Options, device: torch.device) -> dict[str, Case]:
    draws = torch.Generator().manual_seed(0)
    dtype = torch.float32 if options.precision == "float32" else torch.bfloat16
    batch, frame, classes = options.batch_size, options.image_size, options.classes
    side = max(3, frame // STRIDE)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws).to(device)

    features = normal(batch, CHANNELS, side, side).relu().to(dtype)
    weight, bias = 0.1 * normal(classes, CHANNELS), normal(classes)
    labels = torch.randint(classes, (batch,), generator=draws).to(device)
    cam, masks = normal(batch, side, side), pool.blobs(batch, frame, draws).to(device)
    x = normal(batch, 3, frame, frame).sigmoid()
    y = (x + 0.1 * normal(batch, 3, frame, frame)).clamp(0, 1)
    logits = (3 * normal(options.rows, classes)).to(dtype)
    stored = stored_size("standard", frame)
    pixels = torch.randint(256, (2 * batch, stored, stored, 3), generator=draws, dtype=torch.uint8).to(device)
    rows = torch.randperm(2 * batch, generator=draws)[:batch].to(device)
    corners = 0.3 * torch.rand(batch, 4, generator=draws).to(device)
    box = torch.cat([corners[:, :2], 1 - corners[:, 2:]], 1)
    color = plain().to(device).color

    def cyborg(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        head = ops.cam_head(features, weight, bias, labels)
        return ops.cyborg_loss(head.logits, head.cam, labels, masks, alpha=ALPHA)

    return {
        "cam_head": (
            with_gradient(lambda f, w, b: ops.cam_head(f, w, b, labels)[:2], 3),
            with_gradient(lambda f, w, b: usual.cam_head(f, w, b, labels), 3),
            (features, weight, bias),
        ),
        "saliency_loss": (
            with_gradient(ops.saliency_loss),
            with_gradient(usual.saliency_loss),
            (cam, masks),
        ),
        "cyborg_loss": (
            with_gradient(cyborg, 3),
            with_gradient(lambda f, w, b: usual.cyborg_loss(f, w, b, labels, masks, ALPHA), 3),
            (features, weight, bias),
        ),
        "ssim": (with_gradient(ops.ssim, 2), with_gradient(lambda x, y: usual.ssim(x, y).mean(), 2), (x, y)),
        "topn_dice": (lambda *given: ops.topn_dice(*given).dice, usual.topn_dice, (cam, masks)),
        "uncertainty": (
            lambda logits: ops.uncertainty(logits, "margin"),
            lambda logits: usual.uncertainty(logits.float(), "margin"),
            (logits,),
        ),
        "crop_images": (
            lambda *given: ops.crop_images(*given, size=frame, color=color, dtype=dtype),
            partial(usual.crop_images, frame=frame, dtype=dtype),
            (pixels, rows, box),
        ),
    }


def _verify(ours: Any, eager: Any, precision: Precision) -> None:
    """Equal, as far as roundings of the inputs' kind allow (of Dice: a pixel or two of a mask)."""
    tolerance = 1e-2 if precision == "float32" else 5e-2
    pairs = zip(ours, eager, strict=True) if isinstance(ours, tuple) else [(ours, eager)]
    for got, expected in pairs:
        scale = float(expected.float().abs().max())
        torch.testing.assert_close(got.float(), expected.float(), rtol=tolerance, atol=tolerance * scale)
