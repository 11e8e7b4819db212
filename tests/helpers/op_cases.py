"""Random calls of every public op that computes something, each beside plain torch that should agree with it.

`CASES` has one function for each op. It draws the arguments of a call, and returns a `Case`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast import ops
from sal_fast.ops.badge.draws import uniform
from sal_fast.ops.badge.reference import badge as badge_reference
from sal_fast.ops.cam import reference as cam_reference
from sal_fast.ops.crop import reference as crop_reference
from sal_fast.ops.head_step import reference as head_step_reference
from sal_fast.ops.kcenter.reference import kcenter as kcenter_reference
from sal_fast.ops.minmax_normalize import reference as minmax_reference
from sal_fast.ops.overlay import _STEPS as STEPS
from sal_fast.ops.saliency_loss import reference as saliency_reference
from sal_fast.ops.ssim import reference as ssim_reference
from sal_fast.ops.topn import reference as topn_reference
from sal_fast.ops.uncertainty.reference import uncertainty as uncertainty_reference

Results = Tensor | tuple[Tensor, ...]
Function = Callable[..., Results]

FLOAT32, HALVES = torch.float32, (torch.float16, torch.bfloat16)
ORDINARY = (1.0, 1.0, 1e-3, 1e3)
ANY_SCALE = (1.0, 1.0, 1e-30, 1e-3, 1e3, 1e30)  # of an op that has no scale
PLAIN, TRANSFORMS = "plain", "transforms"  # the two groups of modes of test_walk.py


class Case(NamedTuple):
    """A call, as a function of its tensors."""

    op: Function
    reference: Function  # plain torch, in the precision of its floating arguments, none of which is a half
    inputs: tuple[Tensor, ...]
    differentiable: int = 0  # this many of the inputs, from the first, have a gradient
    oracle: Function | None = None  # the results in float64 by other means than the reference
    rounding: float = 1e-6  # of a result of an exact op in float32, relative to the largest
    of_gradient: float = 2e-6  # the same of gradients
    steep: float = 0.05  # how large a gradient is at least in its parts, as part of results / input
    unit: float = 0.0  # inputs count as this large at least, too
    slopes: dict[int, int] = {}  # noqa: RUF012  # results that are gradients, and by which input
    size: float = 0.0  # results count as this large at least, where the op's own range says so
    off_by: int = 0  # by how much integers in the results may be off
    modes: tuple[str, ...] = (PLAIN, TRANSFORMS)
    refused: str | None = None  # the error that a look at the values gives
    dtype: torch.dtype | None = None  # of floating results; None: float64 if the first input is, or float32
    double: bool = True  # whether the arithmetic is in float64 if the first input is


class Draw:
    """Everything that is drawn for one call depends on its seed alone."""

    def __init__(self, seed: int) -> None:
        self.choices = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def one(self, *options: Any) -> Any:
        return self.choices.choice(options)

    def maybe(self, chance: float = 0.5) -> bool:
        return self.choices.random() < chance

    def batch(self) -> int:
        return self.one(0, 1, 1, 2, 3, 5, 9)

    def sides(self, most: int = 40, least: int = 1) -> tuple[int, int]:
        """Height and width: small, odd, equal, tall or wide."""
        kind = self.one("equal", "any", "any", "long")
        one, other = self.choices.randint(least, most // 2), self.choices.randint(least, most // 2)
        if kind == "equal":
            other = one
        elif kind == "long":
            other = self.choices.randint(most // 2, most)
        return (one, other) if self.maybe() else (other, one)

    def dtype(self) -> torch.dtype:
        return self.one(FLOAT32, FLOAT32, FLOAT32, *HALVES, torch.float64)

    def numbers(
        self,
        *shape: int,
        dtype: torch.dtype = FLOAT32,
        scales: tuple[float, ...] = ORDINARY,
        kind: str | None = None,
    ) -> Tensor:
        """Values of one of many kinds; those of a half type are kept within its range."""
        kind = kind or self.one("normal", "normal", "uniform", "relu", "levels", "flat", "some flat", "hot")
        values = torch.randn(shape, dtype=torch.float64, generator=self.generator)
        if kind == "uniform":
            values = torch.rand(shape, dtype=torch.float64, generator=self.generator)
        elif kind == "relu":
            values = (values - 0.3).relu()
        elif kind == "levels":
            values = (2 * values).round().clamp(-3, 3)
        elif kind == "flat":
            values = torch.full(shape, self.one(0.0, 1.0, -0.7), dtype=torch.float64)
        elif kind == "some flat" and shape:
            values[::2] = self.one(0.0, 0.3)
        elif kind == "hot" and values.numel():
            values = torch.zeros_like(values)
            values.view(-1)[self.choices.randrange(values.numel())] = 1.0
        scale = self.one(*scales)
        return (values * (scale if dtype not in HALVES else min(max(scale, 1e-3), 1e3))).to(dtype)

    def labels(self, count: int, classes: int) -> Tensor:
        return torch.randint(classes, (count,), generator=self.generator)

    def mask(self, *shape: int) -> Tensor:
        """Noise, a box, all or nothing."""
        kind = self.one("noise", "noise", "box", "all", "nothing")
        if kind == "noise":
            return torch.rand(shape, generator=self.generator) < self.choices.random()
        mask = torch.full(shape, kind == "all")
        if kind == "box":
            height, width = shape[-2:]
            mask[
                ..., height // 3 : height // 3 + height // 2 + 1, width // 4 : width // 4 + width // 3 + 1
            ] = 1
        return mask

    def map_options(self, sides: tuple[int, int], *, with_size: bool = True) -> dict[str, Any]:
        """The arguments that `saliency_loss`, `cyborg_loss` and `head_step` share."""
        size = self.one(None, None, *range(1, 30)) if with_size else None
        side = min(sides) if size is None else size
        window = self.one(None, None, *range(1, min(side, 13) + 1, 2))
        return {
            "map_size": size, "window": window, "border": self.one("valid", "zero", "reflect"),
            "kind": self.one("ssim_l1", "ssim_l1", "mse"),
        }  # fmt: skip


def packed_if(packed: bool, mask: Tensor) -> Tensor | ops.BitMask:
    return ops.BitMask.pack(mask) if packed else mask


def reduced(values: Tensor, reduction: str) -> Tensor:
    """The mean of nothing is 0."""
    return (
        values if reduction == "none" else values.sum() / (max(1, len(values)) if reduction == "mean" else 1)
    )


# Maps ------------------------------------------------------------------------------------------------------


def minmax_normalize(draw: Draw) -> Case:
    lead = draw.one((), (draw.batch(),), (2, draw.batch()))
    maps = draw.numbers(*lead, *draw.sides(), dtype=draw.dtype(), scales=ANY_SCALE)
    return Case(ops.minmax_normalize, minmax_reference.minmax_normalize, (maps,), 1, by_hand_minmax)


def by_hand_minmax(maps: Tensor) -> Tensor:
    if not maps.numel():
        return maps
    low, high = (edge(-1).values[..., None, None] for edge in (maps.flatten(-2).min, maps.flatten(-2).max))
    flat = low == high  # ties at an extreme share its gradient
    is_low, is_high = maps == low, maps == high
    low = (is_low * maps).sum((-2, -1), keepdim=True) / is_low.sum((-2, -1), keepdim=True)
    high = (is_high * maps).sum((-2, -1), keepdim=True) / is_high.sum((-2, -1), keepdim=True)
    return torch.where(flat, 0.0, (maps - low) / torch.where(flat, 1.0, high - low))


def is_flat(draw: Draw) -> Case:
    maps = draw.numbers(draw.batch(), *draw.sides(), dtype=draw.dtype())
    return Case(ops.is_flat, lambda x: x.flatten(1).amin(1) == x.flatten(1).amax(1), (maps,))


def says_where(draw: Draw) -> Case:
    target, size = draw.mask(draw.batch(), *draw.sides()), draw.sides(12)
    packed = draw.maybe()

    def reference(mask: Tensor) -> Tensor:
        return ~minmax_reference.is_flat(F.adaptive_avg_pool2d(mask.double(), size))

    return Case(lambda mask: ops.says_where(packed_if(packed, mask), size), reference, (target,))


# A gradient is made in float32. The parts that cancel in it are as large as the steepest similarity, which is
# `1 / sqrt(C2)` a pixel.
OF_SSIM: dict[str, Any] = {"of_gradient": 5e-6, "steep": 100 / 3, "size": 1.0}


def ssim(draw: Draw) -> Case:
    """The mean, the weighted mean, or the map of images or volumes that are floating or whole numbers."""
    sides: tuple[int, ...] = draw.sides()
    if draw.maybe(0.1):
        sides = (draw.one(1, 3, 6), *draw.sides(12))
    shape = (draw.one(0, 1, 2, 3), draw.one(1, 2, 3), *sides)
    window, border = draw.one(*range(1, min(*sides, 15) + 1, 2)), draw.one("valid", "zero", "reflect")
    options = {"window": window, "border": border, "sigma": draw.one(1.5, 1.5, 0.6, 4.0)}
    dtype, reach = draw.one(draw.dtype(), draw.dtype(), torch.uint8, torch.uint16), draw.one(1.0, 255.0, 1e-3)
    reach = {torch.uint8: 255.0, torch.uint16: 65535.0}.get(dtype, reach)
    x, y = images(draw, shape, reach, dtype)
    masks = torch.rand(shape[0], *sides, generator=draw.generator)
    masks = draw.one(masks, masks > 0.5, torch.ones_like(masks), torch.ones_like(masks))
    reduction = draw.one("mean", "sum", "none", "map")
    out_dtype = draw.one(None, None, FLOAT32, torch.float64)

    def op(x: Tensor, y: Tensor, masks: Tensor) -> Tensor:
        given: dict[str, Any] = options | {"data_range": reach, "out_dtype": out_dtype}
        if reduction == "map":
            return ops.ssim_map(x, y, **given)
        return ops.ssim(x, y, mask=masks, reduction=reduction, **given)

    def by(maps: Function, whole: torch.dtype) -> Function:
        def similarity(x: Tensor, y: Tensor, masks: Tensor) -> Tensor:
            a, b = (image if image.is_floating_point() else image.to(whole) for image in (x, y))
            found: Any = maps(a, b, **options, data_range=reach)
            lost = window // 2 if border == "valid" else 0
            inside = [slice(lost, side - lost) for side in sides]
            weights = masks[:, None][..., *inside].to(found.dtype).expand_as(found)
            means = (found * weights).flatten(1).sum(1) / weights.flatten(1).sum(1)
            return found if reduction == "map" else reduced(means, reduction)

        return similarity

    result = out_dtype or (torch.float64 if dtype == torch.float64 else FLOAT32)
    return Case(
        op, by(ssim_reference.ssim if len(sides) == 2 else by_hand_ssim, FLOAT32), (x, y, masks),
        2 if dtype.is_floating_point else 0, by(by_hand_ssim, torch.float64), **OF_SSIM, unit=reach,
        dtype=result, double=result == torch.float64,
    )  # fmt: skip


def images(draw: Draw, shape: tuple[int, ...], reach: float, dtype: torch.dtype) -> list[Tensor]:
    """Two images of values up to `reach`, or beyond it; often alike."""
    pair = [draw.numbers(*shape, dtype=torch.float64, scales=(1.0,)) for _ in range(2)]
    if draw.maybe(0.3):
        pair[1] = draw.one(0.0, 0.1) * pair[1] + pair[0]
    if not dtype.is_floating_point or draw.maybe(0.8):
        pair = [image.clamp(0, 1) for image in pair]
    return [(image * reach).to(dtype) for image in pair]


def ms_ssim(draw: Draw) -> Case:
    weights = draw.one((0.3, 0.7), (0.2, 0.3, 0.5), (1.0,))
    window, dtype = draw.one(1, 3, 5), draw.one(draw.dtype(), torch.uint8)
    reduction = draw.one("mean", "none")
    least = window << (len(weights) - 1)
    shape = (draw.one(0, 1, 2), draw.one(1, 3), *(side + least for side in draw.sides(24)))
    reach = 255.0 if dtype == torch.uint8 else 1.0
    x, y = images(draw, shape, reach, dtype)

    def op(x: Tensor, y: Tensor) -> Tensor:
        return ops.ms_ssim(x, y, weights=weights, window=window, reduction=reduction)

    def by(whole: torch.dtype) -> Function:
        def similarity(x: Tensor, y: Tensor) -> Tensor:
            a, b = (image if image.is_floating_point() else image.to(whole) for image in (x, y))
            product: Any = 1.0
            for scale, exponent in enumerate(weights):
                a, b = (F.avg_pool2d(image, 2) if scale else image for image in (a, b))
                structure = scale < len(weights) - 1
                maps = ssim_reference.ssim(a, b, window, 1.5, "valid", reach, structure)
                product = product * maps.mean((2, 3)).clamp(min=0) ** exponent
            return reduced(product.mean(1), reduction)

        return similarity

    given = 2 if dtype.is_floating_point else 0
    return Case(op, by(FLOAT32), (x, y), given, by(torch.float64), **OF_SSIM, unit=reach)


def by_hand_ssim(x: Tensor, y: Tensor, window: int, sigma: float, border: str, data_range: float) -> Tensor:
    """SSIM of every window, with the variances as means of squares about the mean."""
    offsets = torch.arange(window, dtype=x.dtype) - window // 2
    taps = torch.exp(-(offsets**2) / (2 * sigma**2))
    sides, mode = x.ndim - 2, "reflect" if border == "reflect" else "constant"
    taps = torch.cartesian_prod(*[taps / taps.sum()] * sides).prod(1)

    def windows(image: Tensor) -> Tensor:
        image = image if border == "valid" else F.pad(image, [window // 2] * 2 * sides, mode)
        for side in range(sides):
            image = image.unfold(2 + side, window, 1)
        return image.flatten(2 + sides)

    a, b = windows(x), windows(y)
    mean_a, mean_b = (a * taps).sum(-1), (b * taps).sum(-1)
    a, b = a - mean_a[..., None], b - mean_b[..., None]
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance * (2 * (a * b * taps).sum(-1) + c2) / ((a * a * taps + b * b * taps).sum(-1) + c2)


# Class activation maps -------------------------------------------------------------------------------------


def features_and_head(draw: Draw, layout: str) -> tuple[Tensor, Tensor]:
    (height, width), channels = draw.sides(16), draw.one(1, 2, 3, 8, 17, 40)
    shape = (channels, height, width) if layout == "nchw" else (height, width, channels)
    dtype = draw.dtype()
    other = dtype if dtype == torch.float64 else draw.one(dtype, dtype, FLOAT32, *HALVES)
    features = draw.numbers(draw.batch(), *shape, dtype=dtype)
    return features, draw.numbers(draw.one(1, 2, 5), channels, dtype=other, kind=draw.one("normal", "levels"))


def cam(draw: Draw) -> Case:
    layout, probe = draw.one("nchw", "nhwc"), draw.one(*ops.PROBES)
    features, weight = features_and_head(draw, layout)
    (batch, classes), kind = (len(features), len(weight)), draw.one("one each", "one each", "several", "one")
    if kind == "one":
        target = torch.tensor(draw.choices.randrange(classes))
    elif kind == "several":
        target = draw.labels(batch * 2, classes).view(batch, 2)
    else:
        target = draw.labels(batch, classes)

    def op(features: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        given = int(target) if kind == "one" else target
        return ops.cam(features, weight, given, probe=probe, layout=layout)

    def reference(features: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        return cam_reference.cam(nchw(features, layout), weight, spread(target, batch), probe)

    def oracle(features: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        return by_hand_cam(nchw(features, layout), weight, spread(target, batch), probe)

    modes = (PLAIN,) if kind == "one" else (PLAIN, TRANSFORMS)
    return Case(op, reference, (features, weight, target), 2, oracle, modes=modes)


def nchw(features: Tensor, layout: str) -> Tensor:
    return features if layout == "nchw" else features.permute(0, 3, 1, 2)


def spread(target: Tensor, batch: int) -> Tensor:
    return target.expand(batch) if target.ndim == 0 else target


def by_hand_cam(features: Tensor, weight: Tensor, target: Tensor, probe: str) -> Tensor:
    """A sum of channels, one after the other."""
    if target.ndim == 2:
        maps = [by_hand_cam(features, weight, one, probe) for one in target.unbind(1)]
        return torch.stack(maps, 1)
    rows, area = weight[target][..., None, None], features.shape[2] * features.shape[3]
    if probe == "gradcam++":
        below = 2 + features.sum((2, 3), keepdim=True) * rows / area
        below = torch.where(below.abs() < 1e-3, torch.where(below < 0, -1e-3, 1e-3).to(below), below)
        rows = rows.relu() / below
    elif probe != "cam":
        rows = rows / area
    maps = sum((rows[:, k] * features[:, k] for k in range(features.shape[1])), features[:, 0] * 0)
    return maps if probe in ("cam", "hirescam") else maps.relu()


def cam_head(draw: Draw) -> Case:
    layout, probe = draw.one("nchw", "nhwc"), draw.one(*ops.PROBES)
    features, weight = features_and_head(draw, layout)
    bias = draw.numbers(len(weight), dtype=weight.dtype, scales=(1.0,), kind="normal")
    with_bias, given = draw.maybe(0.8), draw.maybe(0.7)
    target = draw.labels(len(features), len(weight))

    def op(features: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Results:
        chosen = target if given else None
        return tuple(
            ops.cam_head(features, weight, bias if with_bias else None, chosen, probe=probe, layout=layout)
        )

    def reference(features: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Results:
        maps = nchw(features, layout)
        chosen = target if given else None
        return cam_reference.cam_head(maps, weight, bias if with_bias else None, chosen, probe)

    def oracle(features: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Results:
        maps, chosen = nchw(features, layout), target if given else None
        return by_hand_head(maps, weight, bias if with_bias else None, chosen, probe)

    return Case(op, reference, (features, weight, bias, target), 2 + with_bias, oracle)


def by_hand_head(
    features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor | None, probe: str
) -> tuple[Tensor, ...]:
    pooled = features.sum((2, 3)) / (features.shape[2] * features.shape[3])
    logits = (pooled[:, None] * weight).sum(2) + (0 if bias is None else bias)
    classes = logits.argmax(1) if target is None else target
    return logits, by_hand_cam(features, weight, classes, probe), pooled, classes


# Losses ----------------------------------------------------------------------------------------------------


def target_of(draw: Draw, batch: int) -> Tensor:
    """A human map: bool, bytes or floating."""
    sides, kind = draw.sides(), draw.one("bool", "bool", "bytes", "floating")
    if kind == "bytes":
        return (draw.numbers(batch, *sides, kind="uniform", scales=(255.0,))).to(torch.uint8)
    return draw.numbers(batch, *sides, dtype=draw.dtype()) if kind == "floating" else draw.mask(batch, *sides)


def resolution(options: dict[str, Any], cam: Tensor) -> tuple[tuple[int, int], int]:
    """At which size a CAM is compared, and with which window."""
    size = options["map_size"]
    sides = (size, size) if size else (cam.shape[1], cam.shape[2])
    return sides, options["window"] or min(11 if size else 7, (min(sides) - 1) // 2 * 2 + 1)


def saliency(options: dict[str, Any], cam: Tensor, target: Tensor, has_map: Tensor) -> Tensor:
    """The losses of the images in plain torch."""
    sides, window = resolution(options, cam)
    how = sides, window, options["border"], options["kind"]
    return saliency_reference.saliency_loss(cam, target, has_map, *how)


def by_hand_saliency(options: dict[str, Any], cam: Tensor, target: Tensor, has_map: Tensor) -> Tensor:
    sides, window = resolution(options, cam)
    human = F.adaptive_avg_pool2d(target.to(cam.dtype), sides)
    low, high = human.amin((1, 2)), human.amax((1, 2))
    counts = has_map & (high - low > 1e-6 * torch.maximum(low.abs(), high.abs()))
    x = by_hand_minmax(cam if sides == tuple(cam.shape[1:]) else topn_reference.enlarged(cam, sides))
    y = by_hand_minmax(human)
    if options["kind"] == "mse":
        loss = (x - y).square().mean((1, 2))
    else:
        similar = by_hand_ssim(x[:, None], y[:, None], window, 1.5, options["border"], 1.0).mean((1, 2, 3))
        loss = 1 - similar + (x - y).abs().mean((1, 2))
    return torch.where(counts, loss, 0.0)


def precision_of(options: dict[str, Any], sides: tuple[int, ...]) -> dict[str, Any]:
    """The bounds of a case for the errors of a loss.

    A window of one pixel leaves the luminance alone, which is steep where a pixel is dark: by up to
    `1 / (2 sqrt(C1))`, 50. Elsewhere the float32 moments lose 2^-25, which is 3e-5 of C2.
    """
    alone = options["window"] == 1 or (options["map_size"] or min(sides)) < 3
    return {"rounding": 2e-6, "of_gradient": 5e-5, "steep": 50.0 if alone else 0.05, "size": 1.0}


def saliency_loss(draw: Draw) -> Case:
    cam = draw.numbers(draw.batch(), *draw.sides(20), dtype=draw.dtype(), scales=ANY_SCALE)
    target, has_map = target_of(draw, len(cam)), draw.mask(len(cam), 1, 1)[:, 0, 0]
    options, reduction = draw.map_options(cam.shape[1:]), draw.one("mean", "sum", "none")
    packed, without = target.dtype == torch.bool and draw.maybe(), draw.maybe()

    def op(cam: Tensor, target: Tensor, has_map: Tensor) -> Tensor:
        given = {"has_map": None if without else has_map, "reduction": reduction}
        return ops.saliency_loss(cam, packed_if(packed, target), **given, **options)

    def by(losses: Function) -> Function:
        return lambda cam, target, has_map: reduced(
            losses(options, cam, target, has_map | without),
            reduction,  # type: ignore[arg-type]
        )

    inputs, precision = (cam, target, has_map), precision_of(options, cam.shape[1:])
    return Case(op, by(saliency), inputs, 1, by(by_hand_saliency), **precision)


def labels_of(draw: Draw, batch: int, classes: int, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Classes, some of them ignored, or soft labels; and the class that is ignored."""
    if draw.maybe(0.3):
        return draw.numbers(batch, classes, kind="normal", scales=(1.0,)).softmax(1).to(dtype), -100
    labels, ignored = draw.labels(batch, classes), draw.one(-100, -1, 0)
    if draw.maybe(0.3):
        labels[::3] = ignored
    return labels, ignored


def cyborg_loss(draw: Draw) -> Case:
    batch, classes, dtype = draw.batch(), draw.one(1, 2, 7), draw.dtype()
    logits = draw.numbers(batch, classes, dtype=dtype)
    cam = draw.numbers(batch, *draw.sides(20), dtype=dtype)
    target, has_map = target_of(draw, batch), draw.mask(batch, 1, 1)[:, 0, 0]
    labels, ignored = labels_of(draw, batch, classes, dtype)
    weight = draw.numbers(classes, kind="uniform", scales=(1.0,)) if draw.maybe() else torch.ones(classes)
    options, alpha, smoothing = draw.map_options(cam.shape[1:]), draw.one(0, 0.5, 0.9, 1), draw.one(0, 0, 0.2)

    def op(logits: Tensor, cam: Tensor, labels: Tensor, *others: Tensor) -> Tensor:
        target, has_map, weight = others
        return ops.cyborg_loss(
            logits, cam, labels, target, alpha=alpha, has_map=has_map, class_weight=weight,
            label_smoothing=smoothing, ignore_index=ignored, **options,
        )  # fmt: skip

    def by(losses: Function) -> Function:
        def loss(logits: Tensor, cam: Tensor, labels: Tensor, *others: Tensor) -> Tensor:
            target, has_map, weight = others
            each = -weight * logits.log_softmax(1)
            if labels.is_floating_point():
                share, counted = labels, torch.ones(batch, dtype=torch.bool)
            else:
                counted = labels != ignored
                share = F.one_hot(torch.where(counted, labels, 0), classes).to(each)
            share = (1 - smoothing) * share + smoothing / classes
            classification = torch.where(counted[:, None], share * each, 0.0).sum()
            maps = losses(options, cam, target, has_map).sum() if alpha < 1 else 0 * cam.sum()
            return (alpha * classification + (1 - alpha) * maps) / max(1, batch)

        return loss

    inputs = (logits, cam, labels, target, has_map, weight)
    return Case(op, by(saliency), inputs, 2, by(by_hand_saliency), **precision_of(options, cam.shape[1:]))


def head_step(draw: Draw) -> Case:
    stored, channels, classes = draw.one(1, 2, 5, 9), draw.one(1, 3, 8, 20), draw.one(1, 2, 6)
    sides, heads, dtype = draw.sides(16), draw.one(1, 2, 3), draw.dtype()
    double = torch.float64 if dtype == torch.float64 else FLOAT32
    features = draw.numbers(stored, *sides, channels, dtype=dtype)
    weight, bias = (
        draw.numbers(heads, classes, *rest, dtype=double, kind="normal") for rest in ((channels,), ())
    )
    labels, rows = draw.labels(stored, classes), draw.labels(draw.batch(), stored)
    target, has_map = target_of(draw, stored), draw.mask(stored, 1, 1)[:, 0, 0]
    class_weight = draw.numbers(classes, dtype=double, kind="uniform", scales=(1.0,))
    maps = draw.map_options(sides, with_size=draw.maybe(0.2))
    alpha, smoothing = [draw.one(0.0, 0.3, 1.0) for _ in range(heads)], draw.one(0.0, 0.1)
    probe = draw.one(*ops.PROBES)
    options: dict[str, Any] = {"alpha": alpha, "label_smoothing": smoothing, "probe": probe} | maps

    def op(features: Tensor, *others: Tensor) -> Results:
        weight, bias, labels, rows, target, has_map, class_weight = others
        given = {"rows": rows, "has_map": has_map, "class_weight": class_weight} | options
        return tuple(ops.head_step(features.contiguous(), weight, bias, labels, target, **given))

    def by(head: Function, losses: Function) -> Function:
        def step(features: Tensor, *others: Tensor) -> Results:
            weight, bias, labels, rows, target, has_map, class_weight = others
            given = (x[rows] for x in (features, labels, target, has_map))
            how = head_step_reference.Options(
                alpha, class_weight, smoothing, probe, "labelled", sides, 1, maps["border"], maps["kind"]
            )
            return head_step_reference.head_step(
                head_step_reference.Batch(*given), weight, bias, how, head,  # type: ignore[arg-type]
                lambda cam, target, has_map, *_: losses(maps, cam, target, has_map),
            )  # fmt: skip

        return step

    inputs = (features, weight, bias, labels, rows, target, has_map, class_weight)
    return Case(
        op, by(cam_reference.cam_head, saliency), inputs, 0, by(by_hand_head, by_hand_saliency),
        slopes={3: 1, 4: 2}, modes=(PLAIN,), **precision_of(maps, sides),
    )  # fmt: skip


# Selection -------------------------------------------------------------------------------------------------


def uncertainty(draw: Draw) -> Case:
    shape = (draw.one(0, 1, 4, 33), draw.one(1, 2, 3, 10, 33, 200))
    logits = draw.numbers(*shape, dtype=draw.dtype(), scales=(1.0, 1.0, 1e-3, 20.0))
    if draw.maybe(0.2) and shape[1] > 1:
        logits[:, draw.choices.randrange(shape[1])] = -torch.inf  # a masked class
    kind, refused = draw.one("margin", "least-confidence", "entropy"), None
    if draw.maybe(0.05) and len(logits):
        logits[draw.choices.randrange(len(logits)), 0] = draw.one(torch.nan, torch.inf)
        refused = "logits"

    def oracle(logits: Tensor) -> Tensor:
        ordered = logits.sort(dim=1, descending=True, stable=True).values
        z = (ordered - ordered[:, :1])[:, 1:]
        likely, z = z.exp(), z.masked_fill(z == -torch.inf, 0.0)
        others = likely.sum(1)
        if kind == "entropy":
            return others.log1p() - (likely * z).sum(1) / (1 + others)
        return (others + (likely[:, :1].sum(1) if kind == "margin" else 0)) / (1 + others)

    return Case(
        lambda x: ops.uncertainty(x, kind), lambda x: uncertainty_reference(x, kind), (logits,), 1, oracle,
        refused=refused,
    )  # fmt: skip


def by_sorting(maps: Tensor, counts: Tensor) -> Tensor:
    """The n largest of each map, the lowest index first among equals, by Python's own sort."""
    masks = torch.zeros(maps.shape, dtype=torch.bool)
    for mask, values, n in zip(masks, maps.flatten(1).tolist(), counts.tolist(), strict=True):
        order = sorted(range(len(values)), key=lambda i, values=values: (-values[i], i))
        mask.view(-1)[order[:n]] = True
    return masks


def topn_mask(draw: Draw) -> Case:
    maps = draw.numbers(draw.batch(), *draw.sides(), dtype=draw.dtype(), scales=ANY_SCALE)
    area, packed, each = maps.shape[1] * maps.shape[2], draw.maybe(), draw.maybe()
    count, refused = draw.choices.randint(0, area), None
    counts = draw.labels(len(maps), area + 1) if each else torch.full((len(maps),), count)
    if draw.maybe(0.05) and maps.numel():
        maps.view(-1)[0] = torch.nan
        refused = "maps contain NaN"

    def op(maps: Tensor, counts: Tensor) -> Tensor:
        found: Any = ops.topn_mask(maps, counts if each else count, packed=packed)  # type: ignore[call-overload]
        return found.unpack() if packed else found

    return Case(op, by_sorting, (maps, counts), refused=refused)


def topn_dice(draw: Draw) -> Case:
    """Maps and sizes for which float32 holds every enlarged pixel, so that only one answer is right."""
    cells, dtype = (draw.one(1, 2, 3, 7), draw.one(1, 2, 5, 7)), draw.dtype()
    cam = draw.numbers(
        draw.batch(), *cells, dtype=dtype, kind=draw.one("levels", "flat", "hot"), scales=(1.0,)
    )
    cam = (8 * cam).round() / 8
    mask = draw.mask(len(cam), *draw.sides())
    size = draw.one(cells, tuple(side * draw.one(1, 2, 4, 8) for side in cells))
    packed, empty = draw.maybe(), draw.one("skip", "zero", "one")

    def op(cam: Tensor, mask: Tensor) -> Results:
        return tuple(ops.topn_dice(cam, packed_if(packed, mask), size=size, empty=empty))

    def reference(cam: Tensor, mask: Tensor) -> Results:
        rows, columns = (
            torch.arange(out) * side // out for out, side in zip(size, mask.shape[1:], strict=True)
        )
        read = mask[:, rows][:, :, columns]
        n = read.flatten(1).sum(1)
        large = F.interpolate(cam[:, None].double(), size, mode="bilinear", align_corners=False)[:, 0]
        hits = (by_sorting(large, n) & read).flatten(1).sum(1)
        return dice_of(2 * hits, 2 * n, empty), hits, n

    return Case(op, reference, (cam, mask), dtype=FLOAT32)


def dice_of(both: Tensor, sizes: Tensor, empty: str) -> Tensor:
    value = {"skip": torch.nan, "zero": 0.0, "one": 1.0}[empty]
    return torch.where(sizes > 0, both / sizes.clamp(min=1), value).float()


def dice(draw: Draw) -> Case:
    shape, empty = (draw.batch(), *draw.sides(80)), draw.one("skip", "zero", "one")
    packed = draw.maybe(), draw.maybe()

    def op(first: Tensor, second: Tensor) -> Tensor:
        return ops.dice(packed_if(packed[0], first), packed_if(packed[1], second), empty=empty)

    def reference(first: Tensor, second: Tensor) -> Tensor:
        both, sizes = (first & second), first.sum((1, 2)) + second.sum((1, 2))
        return dice_of(2 * both.sum((1, 2)), sizes, empty)

    return Case(op, reference, (draw.mask(*shape), draw.mask(*shape)))


def bit_mask(draw: Draw) -> Case:
    mask = draw.mask(draw.batch(), *draw.sides(80))

    def op(mask: Tensor) -> Results:
        packed = ops.BitMask.pack(mask)
        return packed.words, packed.unpack(), packed[1:].unpack()

    def reference(mask: Tensor) -> Results:
        bits = F.pad(mask, (0, -mask.shape[2] % 32)).unflatten(2, (-1, 32)).long()
        words = (bits << torch.arange(32)).sum(-1)
        return torch.where(words >= 1 << 31, words - (1 << 32), words).int(), mask, mask[1:]

    return Case(op, reference, (mask,))


def kcenter(draw: Draw) -> Case:
    rows, width = draw.one(0, 1, 5, 40, 150), draw.one(1, 2, 8, 33)
    features = draw.numbers(rows, width, dtype=draw.dtype(), scales=ANY_SCALE)
    centers = draw.numbers(draw.one(0, 1, 7), width, dtype=features.dtype)
    k = draw.one(0, 1, 3, 20, 200)

    def op(features: Tensor, centers: Tensor) -> Tensor:
        return ops.kcenter(features, k, centers=centers if len(centers) else None)

    def reference(features: Tensor, centers: Tensor) -> Tensor:
        given = centers.double() if len(centers) else None
        return kcenter_reference(features.double(), min(k, len(features)), given)

    return Case(op, reference, (features, centers), modes=(PLAIN,))


def badge(draw: Draw) -> Case:
    """One at a time gives the reference's picks. In blocks the first pick is known, and that none repeats."""
    rows, seed, dtype = draw.one(0, 1, 5, 40, 150), draw.choices.randrange(2**64), draw.dtype()
    logits = draw.numbers(rows, draw.one(1, 2, 5), kind="normal", scales=(1.0, 8.0))
    features = draw.numbers(rows, draw.one(1, 2, 8), dtype=dtype, kind=draw.one("normal", "relu", "uniform"))
    k, method = draw.one(0, 1, 3, 20, 200), draw.one("blocked", "sequential")

    def known(picks: Tensor) -> Results:
        return (
            picks[:1] if method == "blocked" else picks,
            picks.sort().values.unique(),
            torch.tensor(len(picks)),
        )

    def op(probs: Tensor, features: Tensor) -> Results:
        first, distinct, count = known(ops.badge(probs, features, k, seed=seed, method=method))
        return first, torch.tensor(len(distinct)), count

    def reference(probs: Tensor, features: Tensor) -> Results:
        numbers = uniform(seed, 0, max(1, k))[:, 0].tolist()
        picks = badge_reference(probs.double(), features.double(), min(k, rows), numbers)
        first, distinct, count = known(picks)
        return first, torch.tensor(len(distinct)), count

    return Case(op, reference, (logits.softmax(1).to(dtype), features), modes=(PLAIN,))


# Pictures --------------------------------------------------------------------------------------------------


def boxes(draw: Draw, count: int) -> Tensor:
    kind = draw.one("inside", "mirrored", "beyond", "whole")
    corner = torch.rand(count, 2, generator=draw.generator)
    box = torch.cat([0.6 * corner, 0.6 * corner + 0.4], 1)
    if kind == "mirrored":
        box = box[:, [2, 1, 0, 3]]
    elif kind == "beyond":
        box = 3 * box - 1
    elif kind == "whole":
        box = torch.tensor([[0.0, 0, 1, 1]]).repeat(count, 1)
    return box


def crop_images(draw: Draw) -> Case:
    stored, sides, size = draw.one(1, 2, 5), draw.sides(), draw.sides(30)
    images = torch.randint(256, (stored, *sides, 3), generator=draw.generator, dtype=torch.uint8)
    rows = draw.labels(draw.batch(), stored)
    color = draw.numbers(*draw.one((), (len(rows),)), 3, 4, kind="normal", scales=(1.0, 1e-2))
    dtype, into = draw.one(FLOAT32, *HALVES), draw.maybe(0.3)

    def op(images: Tensor, rows: Tensor, box: Tensor, color: Tensor) -> Tensor:
        out = torch.full((len(rows), 3, *size), torch.nan, dtype=dtype) if into else None
        return ops.crop_images(images, rows, box, size=size, color=color, dtype=dtype, out=out)

    def reference(images: Tensor, rows: Tensor, box: Tensor, color: Tensor) -> Tensor:
        found = crop_reference.crop_images(images, rows, box.float(), color, size)
        return found if found.dtype == torch.float64 else found.to(dtype)

    rounding = 1e-6 if dtype == FLOAT32 else torch.finfo(dtype).eps
    modes = (PLAIN,) if into else (PLAIN, TRANSFORMS)
    inputs = (images, rows, boxes(draw, len(rows)), color)
    return Case(op, reference, inputs, rounding=rounding, modes=modes, dtype=dtype)


def crop_masks(draw: Draw) -> Case:
    stored, sides, size = draw.one(1, 2, 5), draw.sides(70), draw.sides(30)
    kind, rows = draw.one("bool", "packed", "bytes"), draw.labels(draw.batch(), stored)
    masks = draw.mask(stored, *sides)
    if kind == "bytes":
        masks = torch.randint(256, masks.shape, generator=draw.generator, dtype=torch.uint8)

    def op(masks: Tensor, rows: Tensor, box: Tensor) -> Tensor:
        return ops.crop_masks(packed_if(kind == "packed", masks), rows, box, size=size)

    def reference(masks: Tensor, rows: Tensor, box: Tensor) -> Tensor:
        return crop_reference.crop_masks(masks, rows, box.float(), size)

    return Case(op, reference, (masks, rows, boxes(draw, len(rows))))


def overlay(draw: Draw) -> Case:
    batch, sides, bytes_ = draw.batch(), draw.sides(), draw.maybe()
    maps = draw.numbers(batch, *draw.sides(20), dtype=draw.dtype())
    if bytes_:
        images = torch.randint(256, (batch, *sides, 3), generator=draw.generator, dtype=torch.uint8)
    else:
        images = draw.numbers(batch, 3, *sides, dtype=draw.dtype(), kind="uniform", scales=(1.0,))
    opacity, colours, normalize = draw.one(0.0, 0.6, 1.0), draw.one("inferno", "viridis"), draw.maybe()
    steps = [list(bytes.fromhex(code)) for code in STEPS[colours].split()]

    def op(images: Tensor, maps: Tensor) -> Tensor:
        return ops.overlay(images, maps, opacity=opacity, colours=colours, normalize=normalize)

    def reference(images: Tensor, maps: Tensor) -> Tensor:
        heat = by_hand_minmax(maps) if normalize else maps.clamp(0, 1)
        large = topn_reference.enlarged(heat, sides).detach().double().numpy()
        table = np.array(steps) / 255
        painted = [np.interp(large, np.linspace(0, 1, len(table)), channel) for channel in table.T]
        colour = torch.from_numpy(np.stack(painted, 1))
        pixels = images.permute(0, 3, 1, 2) / 255 if bytes_ else images
        mixed = (1 - opacity) * pixels + opacity * colour
        if bytes_:
            return (255 * mixed).round().to(torch.uint8).permute(0, 2, 3, 1)
        return mixed

    rounding = torch.finfo(FLOAT32 if bytes_ else images.dtype).eps + 4e-6
    return Case(op, reference, (images, maps), rounding=rounding, off_by=1, dtype=images.dtype, double=False)


CASES: tuple[Callable[[Draw], Case], ...] = (
    minmax_normalize, is_flat, says_where, ssim, ssim, ssim, ms_ssim, cam, cam, cam_head, cam_head,
    saliency_loss, saliency_loss, saliency_loss, cyborg_loss, cyborg_loss, head_step, head_step, uncertainty,
    topn_mask,
    topn_dice, dice, bit_mask, kcenter, badge, crop_images, crop_masks, overlay,
)  # fmt: skip
