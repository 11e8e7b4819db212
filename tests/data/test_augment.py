"""One draw for image and map, from (seed, round, epoch, id) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from sal_fast import ops
from sal_fast.data import augment
from sal_fast.data.augment import Augmentation
from sal_fast.data.masks import Masks

IDS = [f"class/{i:04d}" for i in range(2000)]
STANDARD = Augmentation("standard", seed=1, round=2, epoch=3)


def test_plain_view_is_the_normalised_image() -> None:
    images = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    mean, std = torch.tensor(augment.MEAN)[:, None, None], torch.tensor(augment.STD)[:, None, None]
    draws = Augmentation("none", 0, 0, 0).draw(augment.keys(["a", "b"]))
    view = ops.crop_images(images, None, draws.box, size=8, color=draws.color)
    torch.testing.assert_close(view, (images.permute(0, 3, 1, 2) / 255 - mean) / std)


def test_image_and_mask_get_the_same_draw() -> None:
    """An image that is its own mask is still its own mask after a crop, a flip and two resizes."""
    size, stored = 56, augment.stored_size("standard", 56)
    assert stored == 64

    def disc(side: int) -> torch.Tensor:
        centres = (torch.arange(side) + 0.5) / side
        return ((centres[:, None] - 0.4) ** 2 + (centres[None] - 0.6) ** 2 < 0.06).to(torch.uint8) * 255

    images = disc(stored)[None, :, :, None].repeat(64, 1, 1, 3)
    masks = Masks.pack(disc(size)[None].repeat(64, 1, 1))
    draws = STANDARD.draw(augment.keys(IDS[:64]))
    bright = ops.crop_images(images, None, draws.box, size=size, color=torch.eye(3, 4))[:, 0] > 127
    cropped = masks.batch(torch.arange(64), draws.box)
    assert isinstance(cropped, torch.Tensor)
    assert (cropped != bright).float().mean() < 0.02
    assert cropped.float().mean((1, 2)).std() > 0.02  # the crops differ


@pytest.mark.parametrize("words", ["vflip", "turn", "rotate", "vflip+turn+rotate+color"])
def test_image_and_map_get_the_same_rotation(words: str) -> None:
    """A map that is cut from the image by a threshold is still that after the draw, but for its rim."""
    size, stored = 56, augment.stored_size(words, 56)
    side = (torch.arange(stored) + 0.5) / stored
    spots = [(0.3, 0.25, 0.02), (0.25, 0.7, 0.01), (0.7, 0.45, 0.03)]
    disc = sum((side[:, None] - y) ** 2 + (side[None] - x) ** 2 < area for y, x, area in spots) > 0
    image = disc.to(torch.uint8)[None, :, :, None].repeat(1, 1, 1, 3) * 255
    small = torch.nn.functional.interpolate(disc[None, None].float(), (size, size), mode="nearest-exact")[0]
    maps = Masks.pack((small * 255).to(torch.uint8))
    graded = Masks.pack((small * 254).to(torch.uint8))
    draws = Augmentation(words, seed=1, round=2, epoch=3).draw(augment.keys(IDS[:40]))
    rows = torch.zeros(40, dtype=torch.int64)
    view = ops.crop_images(image, rows, draws.box, size=size, color=torch.eye(3, 4))
    if draws.angle is not None:
        view = augment.rotated(view, draws.angle, "bilinear")
    moved = maps.batch(rows, *draws.of_map)
    assert isinstance(moved, torch.Tensor)
    assert moved.dtype == torch.bool
    assert (moved != (view[:, 0] > 127)).float().mean() < 0.03
    pixels = graded.batch(rows, *draws.of_map)
    assert isinstance(pixels, torch.Tensor)
    assert torch.equal(pixels, moved.to(torch.uint8) * 254)
    places = moved.flatten(1).float()
    assert len(places.unique(dim=0)) == 40  # every image has a draw of its own


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("side", [1, 2, 5, 56])
def test_a_quarter_turn_moves_pixels_onto_pixels(quarters: int, side: int) -> None:
    values = torch.rand(3, 2, side, side, generator=torch.Generator().manual_seed(side))
    angle = torch.full((3,), 90.0 * quarters)
    expected = values.rot90(quarters, (2, 3))
    torch.testing.assert_close(augment.rotated(values, angle, "bilinear"), expected, rtol=0, atol=1e-4)
    assert torch.equal(augment.rotated(values, angle, "nearest"), expected)
    masks = values > 0.5
    assert torch.equal(augment.rotated(masks, angle - 360, "nearest"), masks.rot90(quarters, (2, 3)))


def test_a_rotation_is_torchvisions_inside_the_square() -> None:
    """torchvision rotates counter-clockwise about the centre, too, but fills the corners with zeros."""
    values = torch.rand(1, 1, 33, 33, generator=torch.Generator().manual_seed(0))
    ours = augment.rotated(values, torch.tensor([11.0]), "bilinear")
    theirs = tv.rotate(values, 11.0, tv.InterpolationMode.BILINEAR)
    torch.testing.assert_close(ours[..., 8:-8, 8:-8], theirs[..., 8:-8, 8:-8], rtol=0, atol=1e-4)
    alone = augment.rotated(values.repeat(5, 1, 1, 1), torch.tensor([3.0, 11.0, 90.0, 0.0, -7.0]), "bilinear")
    assert torch.equal(alone[1], ours[0])  # an image does not depend on its batch


def test_words_add_to_one_another() -> None:
    keys = augment.keys(IDS[:200])
    standard = STANDARD.draw(keys)
    every = Augmentation("vflip+turn+rotate", seed=1, round=2, epoch=3).draw(keys)
    assert standard.angle is None
    assert standard.box is not None
    assert every.box is not None
    assert every.angle is not None
    assert torch.equal(every.box[:, ::2], standard.box[:, ::2])
    flipped = every.box[:, 1] > every.box[:, 3]
    assert torch.equal(every.box[flipped][:, [3, 1]], standard.box[flipped][:, [1, 3]])
    assert torch.equal(every.box[~flipped], standard.box[~flipped])
    assert 0.35 < flipped.float().mean() < 0.65
    turned = Augmentation("turn", seed=1, round=2, epoch=3).draw(keys).angle
    tilted = Augmentation("rotate", seed=1, round=2, epoch=3).draw(keys).angle
    assert turned is not None
    assert tilted is not None
    assert sorted(set(turned.tolist())) == [0, 90, 180, 270]
    assert 10 < tilted.abs().max() <= augment.ANGLE
    torch.testing.assert_close(every.angle, turned + tilted)
    one, other = every.split([3, 197])
    assert other.angle is not None
    assert torch.equal(other.angle, every.angle[3:])
    assert torch.equal(every[torch.tensor([5])].box, every.box[5:6])
    assert one.to(torch.device("cpu")).angle is not None


def test_draws_depend_on_seed_round_epoch_and_id_alone() -> None:
    keys = augment.keys(IDS)
    whole = STANDARD.draw(keys).box
    order = np.random.default_rng(0).permutation(len(IDS))[:77]
    some = STANDARD.draw(augment.keys([IDS[i] for i in order])).box
    assert whole is not None
    assert some is not None
    assert torch.equal(some, whole[torch.from_numpy(order)])
    for other in (("standard", 0, 2, 3), ("standard", 1, 0, 3), ("standard", 1, 2, 0)):
        box = Augmentation(*other).draw(keys).box
        assert box is not None
        assert (box != whole).any(1).float().mean() > 0.999


def test_standard_crops_are_those_it_says() -> None:
    box = STANDARD.draw(augment.keys(IDS)).box
    assert box is not None
    assert box.min() >= 0
    assert box.max() <= 1 + 1e-6
    width, height = (box[:, 2] - box[:, 0]).abs(), box[:, 3] - box[:, 1]
    area, ratio = width * height, width / height
    assert area.min() >= 0.5 * 0.86  # a side is cut off at the image's
    assert area.max() <= 1 + 1e-6
    assert ratio.min() >= 3 / 4 - 1e-5
    assert ratio.max() <= 4 / 3 + 1e-5
    assert 0.45 < (box[:, 2] < box[:, 0]).float().mean() < 0.55
    assert abs(float(ratio.log().mean())) < 0.02


def test_uniform_numbers_are_uniform_and_unrelated() -> None:
    u = augment.uniform(augment.keys([f"{i}" for i in range(20000)]), 8)
    assert ((u >= 0) & (u < 1)).all()
    for column in u.T:
        counts = np.histogram(column, bins=20, range=(0, 1))[0]
        assert ((counts - 1000) ** 2 / 1000).sum() < 50  # chi-squared, 19 degrees: 1.3e-4
    assert np.abs(np.corrcoef(u.T) - np.eye(8)).max() < 0.035
    assert np.abs(np.corrcoef(u[:-1].T, u[1:].T)[:8, 8:]).max() < 0.035


def test_uniform_is_splitmix64() -> None:
    """The reference generator, seeded with 1234567, as published by Vigna."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    state, ours = np.uint64(1234567), []
    with np.errstate(over="ignore"):
        for _ in published:
            state = state + np.uint64(0x9E3779B97F4A7C15)
            ours.append(int(augment._mix(np.array([state]))[0]))
    assert ours == published


@pytest.mark.parametrize("factor", [0.6, 1.4])
@pytest.mark.parametrize("kind", ["brightness", "saturation"])
def test_color_is_torchvisions_where_nothing_is_cut_off(kind: str, factor: float) -> None:
    image = torch.rand(1, 3, 5, 5) * 0.3 + 0.3
    one, other = np.ones(1), np.full(1, factor)
    terms = {"brightness": one, "contrast": one, "saturation": one, kind: other}
    matrix = torch.from_numpy(augment._jitter(**terms))[0].float()
    ours = torch.einsum("ck,bkyx->bcyx", matrix[:, :3], image * 255) + matrix[:, 3, None, None]
    theirs = getattr(tv, f"adjust_{kind}")(image, factor) * 255
    torch.testing.assert_close(ours, theirs, atol=0.1, rtol=1e-3)


def test_contrast_turns_around_grey_and_the_three_compose() -> None:
    matrix = augment._jitter(np.array([1.1]), np.array([0.7]), np.array([1.3]))[0]
    pixel = np.array([10.0, 90.0, 200.0])
    bright = 1.1 * pixel
    contrasted = augment.GREY + 0.7 * (bright - augment.GREY)
    luma = contrasted @ np.array(augment.LUMA)
    np.testing.assert_allclose(matrix @ [*pixel, 1], luma + 1.3 * (contrasted - luma))
    color = Augmentation("color", 0, 0, 0).draw(augment.keys(IDS[:5]))
    assert color.color.shape == (5, 3, 4)
    assert torch.equal(color.box, Augmentation("standard", 0, 0, 0).draw(augment.keys(IDS[:5])).box)
