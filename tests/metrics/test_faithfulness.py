"""Insertion and deletion against loops in float64, and cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sal_fast.metrics import blurred, deletion, insertion


def linear(images: Tensor) -> Tensor:
    """Logits of two classes: the mean of the image's left half, and zero."""
    half = images[..., : images.shape[-1] // 2].mean((1, 2, 3))
    return torch.stack([half, torch.zeros_like(half)], dim=1)


def area(begin: np.ndarray, end: np.ndarray, heights: np.ndarray, label: int, steps: int) -> float:
    """One image, changed pixel by pixel."""
    order = np.argsort(-heights.ravel(), kind="stable")
    pixels, seen, shares = begin.copy(), [], []
    for step in range(steps + 1):
        count = round(step * heights.size / steps)
        for place in order[:count]:
            pixels[:, place // heights.shape[1], place % heights.shape[1]] = end[
                :, place // heights.shape[1], place % heights.shape[1]
            ]
        logits = linear(torch.from_numpy(pixels)[None]).double().numpy()[0]
        seen.append(np.exp(logits[label]) / np.exp(logits).sum())
        shares.append(count / heights.size)
    return float(np.trapezoid(seen, shares))


@pytest.mark.parametrize("steps", [1, 7, 32])
@pytest.mark.parametrize("kind", ["random", "ties", "flat"])
def test_against_loops(kind: str, steps: int) -> None:
    rng = np.random.default_rng(3)
    images = torch.from_numpy(rng.normal(size=(4, 3, 8, 10)))
    kinds = {
        "random": rng.normal(size=(4, 8, 10)),
        "ties": rng.integers(0, 3, (4, 8, 10)),
        "flat": np.ones((4, 8, 10)),
    }
    heights = kinds[kind]
    classes = torch.tensor([0, 1, 0, 1])
    maps = torch.from_numpy(heights).double()
    blur = blurred(images)
    gone, back = (
        deletion(linear, images, maps, classes, steps),
        insertion(linear, images, maps, classes, steps),
    )
    for index in range(4):
        image, label = images[index].numpy(), int(classes[index])
        want = area(image, np.zeros_like(image), heights[index], label, steps)
        assert gone[index].item() == pytest.approx(want, abs=1e-6)
        want = area(blur[index].numpy(), image, heights[index], label, steps)
        assert back[index].item() == pytest.approx(want, abs=1e-6)


def test_a_map_of_what_counts_is_better_than_its_opposite() -> None:
    images = torch.full((1, 3, 16, 16), 4.0)
    counts = torch.zeros(1, 2, 2)
    counts[..., 0] = 1
    label = torch.tensor([0])
    assert deletion(linear, images, counts, label) < deletion(linear, images, -counts, label) - 0.1
    assert deletion(linear, images, counts, label, steps=1).item() == pytest.approx(
        (torch.tensor(4.0).sigmoid().item() + 0.5) / 2, abs=1e-6
    )
    # a blurred image of one colour is that image: nothing changes while it is restored
    want = torch.tensor(4.0).sigmoid().item()
    assert insertion(linear, images, counts, label).item() == pytest.approx(want, abs=1e-5)


def test_the_blur_is_that_of_rise_at_its_size() -> None:
    image = torch.zeros(1, 3, 224, 224)
    image[..., 100, 90] = 1
    weights = torch.exp(-torch.arange(-5, 6).double().square() / 50)
    kernel = torch.outer(weights, weights) / weights.sum() ** 2
    found = blurred(image)[0, 0]
    torch.testing.assert_close(found[95:106, 85:96].double(), kernel, rtol=1e-4, atol=1e-7)
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
    for size in (1, 2, 9):
        assert blurred(torch.rand(1, 3, size, size)).shape == (1, 3, size, size)


def test_nan_and_what_is_refused() -> None:
    images, maps, classes = torch.rand(2, 3, 8, 8), torch.rand(2, 4, 4), torch.tensor([0, 1])
    maps[1, 2, 2] = torch.nan
    for measure in (deletion, insertion):
        assert measure(linear, images, maps, classes).isnan().tolist() == [False, True]
        with pytest.raises(ValueError, match="expected at least one step, got 0"):
            measure(linear, images, maps, classes, 0)
        with pytest.raises(ValueError, match=r"expected images \[B, 3, H, W\], maps \[B, h, w\]"):
            measure(linear, images, maps[:1], classes)
