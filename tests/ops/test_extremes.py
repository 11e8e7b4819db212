"""Arguments at the ends of their ranges, and of the wrong kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast import ops, query


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-30, 1e-13, 1e-12, 1e-6, 255.0, 65535.0, 1e6, 1e10, 1e12, 1e30])
def test_ssim_has_no_scale(scale: float, dtype: torch.dtype) -> None:
    x, y = numbers(2, 1, 16, 16), numbers(2, 1, 16, 16, seed=1)
    plain = x.clone().requires_grad_()
    expected = ops.ssim(plain, y, reduction="none")
    expected.sum().backward()
    scaled = (x * scale).to(dtype).requires_grad_()
    found = ops.ssim(scaled, (y * scale).to(dtype), data_range=scale, reduction="none")
    found.sum().backward()
    assert scaled.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(scaled.grad.double() * scale, plain.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_a_map_with_an_infinity_is_nan(value: str, dtype: torch.dtype) -> None:
    """It has no range. The other maps of the batch are as without it."""
    maps = numbers(3, 5, 37).to(dtype)
    expected = ops.minmax_normalize(maps)
    maps[1, 2, 3] = float(value)
    leaf = maps.clone().requires_grad_()
    found = ops.minmax_normalize(leaf)
    assert found[1].isnan().all()
    assert torch.equal(found[[0, 2]], expected[[0, 2]])
    found.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad[1].isnan().all()
    assert leaf.grad[[0, 2]].isfinite().all()
    assert not ops.is_flat(maps).any()


def test_a_range_beyond_the_largest_number() -> None:
    maps = torch.tensor([[[3e38, -3e38, 0.0]]])
    assert ops.minmax_normalize(maps).isnan().all()
    assert torch.equal(ops.minmax_normalize(maps.double())[0, 0], torch.tensor([1, 0, 0.5]).double())


@pytest.mark.parametrize("kind", ops.SALIENCY_KINDS)
@pytest.mark.parametrize("scale", [1e-45, 1e-40, 3e-39, 1e-38, 1e-37, 1e-30, 1e30, 1e37])
@pytest.mark.parametrize("side", [7, 14])
def test_cams_of_any_scale(scale: float, side: int, kind: Any) -> None:
    """A CAM whose range is no normal number is flat; any other gives the loss that it gives at scale 1."""
    cam, masks = numbers(20, side, side), numbers(20, 28, 28, seed=1) > 0.6
    scaled = (cam * scale).float().requires_grad_()
    loss = ops.saliency_loss(scaled, masks, kind=kind)
    loss.backward()
    flat = ops.is_flat(scaled.detach())
    assert bool(flat.all() if scale < 1e-38 else not flat.any() or scale == 1e-38)
    counted = torch.where(flat[:, None, None], 0.0, cam)
    torch.testing.assert_close(
        loss.double(),
        ops.saliency_loss(counted, masks, kind=kind),
        rtol=0,
        atol=2e-5 if scale > 1e-37 else 1e-2,
    )
    assert scaled.grad is not None
    assert (
        scaled.grad.isfinite().all() or scale <= 1e-37
    )  # the derivative of a CAM so small is beyond float32
    assert not ops.minmax_normalize(scaled.detach()).isnan().any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_cam_that_does_not_count(bad: float) -> None:
    """With alpha 1 the loss is the cross-entropy, whatever the CAM is."""
    logits, cam = numbers(3, 4).float().requires_grad_(), torch.full((3, 7, 7), bad, requires_grad=True)
    labels = torch.tensor([0, 3, 1])
    loss = ops.cyborg_loss(logits, cam, labels, numbers(3, 14, 14) > 0.5, alpha=1.0)
    loss.backward()
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))
    assert cam.grad is not None
    assert not cam.grad.any()


def test_numbers_of_numpy_count_as_numbers() -> None:
    maps, cam, masks = numbers(2, 9, 9), numbers(2, 5, 5), numbers(2, 9, 9) > 0.5
    assert torch.equal(ops.topn_mask(maps, np.int64(7)), ops.topn_mask(maps, 7))
    small = ops.saliency_loss(cam, masks, map_size=np.int32(9), window=np.int64(3))
    assert small == ops.saliency_loss(cam, masks, map_size=9, window=3)
    images = maps[:, None]
    assert ops.ssim(images, images.flip(2), window=np.int64(5)) == ops.ssim(images, images.flip(2), window=5)
    features = numbers(20, 4)
    assert torch.equal(ops.kcenter(features, np.int64(3)), ops.kcenter(features, 3))
    color = torch.eye(3, 4)
    pixels = torch.zeros(2, 9, 9, 3, dtype=torch.uint8)
    assert ops.crop_images(pixels, size=np.int64(4), color=color).shape == (2, 3, 4, 4)
    assert ops.crop_images(pixels, size=(np.int64(4), 5), color=color).shape == (2, 3, 4, 5)


IMAGES, CAMS, LABELS = numbers(2, 1, 12, 12), numbers(2, 7, 7), torch.tensor([0, 1])
LOGITS, FEATURES, WEIGHT, MASKS = numbers(2, 3), numbers(2, 4, 7, 7), numbers(3, 4), numbers(2, 9, 9) > 0.5
PIXELS, COLOR = torch.zeros(2, 9, 9, 3, dtype=torch.uint8), torch.eye(3, 4)
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "ssim, a list": (lambda: ops.ssim(IMAGES.tolist(), IMAGES), "ssim: x must be a tensor, got list"),
    "ssim, a window": (lambda: ops.ssim(IMAGES, IMAGES, window=5.0), "window must be an int, got float"),
    "cam, labels": (lambda: ops.cam(FEATURES, WEIGHT, [0, 1]), "cam: target must be a tensor, got list"),
    "cam, weight": (lambda: ops.cam(FEATURES, WEIGHT.numpy(), LABELS), "weight must be a tensor, got nd"),
    "cyborg_loss, labels": (
        lambda: ops.cyborg_loss(LOGITS, CAMS, [0, 1], MASKS, alpha=0.5), "labels must be a tensor, got list"
    ),
    "saliency_loss, masks": (lambda: ops.saliency_loss(CAMS, MASKS.tolist()), "target must be a tensor or"),
    "saliency_loss, has_map": (
        lambda: ops.saliency_loss(CAMS, MASKS, has_map=[True, False]), "has_map must be a tensor, got list"
    ),
    "saliency_loss, map_size": (
        lambda: ops.saliency_loss(CAMS, MASKS, map_size=9.0), "map_size must be an int, got float"
    ),
    "topn_mask, n": (lambda: ops.topn_mask(CAMS, 2.5), "n must be an int or an int64 tensor, got float"),
    "topn_mask, a list": (lambda: ops.topn_mask(CAMS, [2, 3]), "int or an int64 tensor, got list"),
    "topn_dice": (lambda: ops.topn_dice(CAMS, MASKS.tolist()), "mask must be a tensor or a Bit"),
    "dice": (lambda: ops.dice(MASKS.numpy(), MASKS), "pred must be a tensor or a BitMask, got ndarray"),
    "uncertainty": (lambda: ops.uncertainty(LOGITS.tolist()), "logits must be a tensor, got list"),
    "crop_images, rows": (
        lambda: ops.crop_images(PIXELS, [0], size=4, color=COLOR), "rows must be a tensor, got list"
    ),
    "crop_images, size": (
        lambda: ops.crop_images(PIXELS, size=4.0, color=COLOR), "size must be an int or two, got float"
    ),
    "kcenter, k": (lambda: ops.kcenter(numbers(9, 3), 2.0), "kcenter: k must be an int, got float"),
    "badge, k": (lambda: ops.badge(LOGITS, WEIGHT[:2], "2", seed=0), "badge: k must be an int"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kind_of_argument_gets_the_ops_own_error(name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


def test_nothing_is_written_into_a_graph() -> None:
    out = torch.zeros(2, 3, 4, 4, requires_grad=True)
    for given in (out, out + 1):
        with pytest.raises(ValueError, match="out must be no part of a graph of autograd"):
            ops.crop_images(PIXELS, size=4, color=COLOR, out=given)


@pytest.mark.parametrize("criterion", ["margin", "least-confidence", "entropy", "badge"])
def test_classes_may_be_masked_by_minus_infinity(criterion: str) -> None:
    """A class with the logit -inf counts as one that is not there; in `uncertainty` and in a query alike."""
    logits, features = numbers(30, 4).float() * 4, numbers(30, 6).float()
    masked = torch.cat([logits, torch.full((30, 1), -torch.inf)], 1)
    if criterion != "badge":
        torch.testing.assert_close(
            ops.uncertainty(masked, criterion),
            ops.uncertainty(logits, criterion),
            rtol=1e-6,
            atol=0,  # type: ignore[arg-type]
        )
    ids = [f"{number:02d}" for number in range(30)]
    found = [
        query.select(criterion, query.Pool(ids, logits=one, features=features), 5, seed=0).positions.tolist()
        for one in (masked, logits)
    ]
    assert found[0] == found[1]
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="logits contain NaN or infinity"):
            query.select(
                criterion, query.Pool(ids, logits=logits.clone().fill_(bad), features=features), 5, seed=0
            )
    masked[3] = -torch.inf
    with pytest.raises(ValueError, match="not all of an image"):
        query.select(criterion, query.Pool(ids, logits=masked, features=features), 5, seed=0)


def test_soft_labels_and_labels_that_are_ignored() -> None:
    logits, cam, masks = numbers(4, 5), numbers(4, 7, 7), numbers(4, 14, 14) > 0.5
    labels, none = torch.tensor([0, 3, -100, 1]), torch.zeros(4, dtype=torch.bool)
    weight = numbers(5, seed=3)
    options: dict[str, Any] = {"alpha": 1.0, "has_map": none, "class_weight": weight, "label_smoothing": 0.2}
    found = ops.cyborg_loss(logits, cam, labels, masks, **options)
    each = F.cross_entropy(logits, labels, weight, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(found, each.sum() / 4)
    assert each[2] == 0
    with_map = ops.cyborg_loss(logits, cam, labels, masks, alpha=0.0)
    torch.testing.assert_close(with_map, ops.saliency_loss(cam, masks))
    soft = numbers(4, 5, seed=4).softmax(1)
    found = ops.cyborg_loss(logits.float(), cam, soft, masks, **options | {"class_weight": weight.float()})
    smooth = 0.8 * soft + 0.2 / 5
    expected = -(smooth * weight * logits.log_softmax(1)).sum() / 4
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.4, got 0\.\.7"):
        ops.cyborg_loss(logits, cam, torch.tensor([0, 7, -100, 1]), masks, alpha=0.5)
    with pytest.raises(ValueError, match="soft labels must be probabilities"):
        ops.cyborg_loss(logits, cam, -soft, masks, alpha=0.5)
    with pytest.raises(ValueError, match=r"labels must have shape \[4, 5\]"):
        ops.cyborg_loss(logits, cam, soft[:, :4], masks, alpha=0.5)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("probe", ops.PROBES)
def test_maps_of_one_class_for_all_and_of_several(probe: Any, layout: Any) -> None:
    features, weight = numbers(3, 6, 5, 7) - 0.3, numbers(4, 6, seed=1) - 0.5
    given = features if layout == "nchw" else features.permute(0, 2, 3, 1)
    for dtype in (torch.float32, torch.float64):
        options: dict[str, Any] = {"probe": probe, "layout": layout, "normalize": True}
        x, w = given.to(dtype), weight.to(dtype)
        of_two = ops.cam(x, w, torch.full((3,), 2), **options)
        assert torch.equal(ops.cam(x, w, 2, **options), of_two)
        assert torch.equal(ops.cam(x, w, np.int64(2), **options), of_two)  # type: ignore[arg-type]
        targets = torch.tensor([[0, 2], [3, 3], [1, 0]])
        leaf = x.clone().requires_grad_()
        several = ops.cam(leaf, w, targets, **options)
        assert several.shape == (3, 2, 5, 7)
        for place in range(2):
            one = ops.cam(x, w, targets[:, place], **options)
            torch.testing.assert_close(several[:, place], one, rtol=1e-4, atol=1e-5)
        several.sum().backward()
        assert leaf.grad is not None
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.3, got 0\.\.4"):
        ops.cam(given, weight, torch.tensor([[0, 4]] * 3), layout=layout)
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.3, got -1"):
        ops.cam(given, weight, -1, layout=layout)
