"""sal_fast.ops.overlay: the colours are matplotlib's, the rest is arithmetic by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import colormaps

from sal_fast import ops


@pytest.mark.parametrize("colours", ["inferno", "viridis"])
def test_colours(colours: Any) -> None:
    """A map alone, at the image's size, without normalisation."""
    values = torch.linspace(0, 1, 256).view(1, 16, 16)
    images = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    found = ops.overlay(images, values, opacity=1.0, colours=colours, normalize=False)
    expected = colormaps[colours](values.numpy())[..., :3] * 255
    assert np.abs(found.numpy() - expected).max() <= 7.5


def test_opacity_layouts_and_dtypes() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 12, 10, 3), dtype=torch.uint8, generator=generator)
    maps = torch.rand(3, 5, 4, generator=generator)
    assert torch.equal(ops.overlay(pixels, maps, opacity=0.0), pixels)
    alone = ops.overlay(torch.zeros_like(pixels), maps, opacity=1.0).double()
    mixed = ops.overlay(pixels, maps, opacity=0.25).double()
    assert (mixed - (0.75 * pixels + 0.25 * alone)).abs().max() <= 1
    floating = ops.overlay(pixels.permute(0, 3, 1, 2) / 255, maps.half(), opacity=0.25)
    assert floating.shape == (3, 3, 12, 10)
    assert (floating.permute(0, 2, 3, 1) * 255 - mixed).abs().max() <= 1
    assert torch.equal(ops.overlay(pixels, maps * 7 - 2), ops.overlay(pixels, maps.double() * 7 - 2))


def test_maps_that_say_nothing() -> None:
    pixels = torch.full((3, 6, 6, 3), 100, dtype=torch.uint8)
    maps = torch.rand(3, 3, 3, generator=torch.Generator().manual_seed(1))
    maps[1, 0, 0] = torch.nan
    found = ops.overlay(pixels, maps)
    assert torch.equal(found[1], pixels[1])
    assert not torch.equal(found[0], pixels[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [1]}, "images must be a tensor, got list"),
        ({"maps": torch.zeros(2, 3, 3, dtype=torch.int64)}, "maps must be of a floating dtype"),
        ({"maps": torch.zeros(3, 3, 3)}, r"images must have shape \[3, \*, \*, 3\]"),
        ({"maps": torch.zeros(2, 0, 3)}, "maps must have at least one pixel"),
        ({"opacity": 1.5}, r"opacity must lie in \[0, 1\], got 1.5"),
        ({"colours": "jet"}, "colours must be one of inferno, viridis, got 'jet'"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    given = {"images": torch.zeros(2, 6, 6, 3, dtype=torch.uint8), "maps": torch.zeros(2, 3, 3)} | change
    with pytest.raises((TypeError, ValueError), match=message):
        ops.overlay(**given)
