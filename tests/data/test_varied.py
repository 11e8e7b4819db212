"""Batches of a plug-in: what it is given, what it must return, and what its draws depend on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sal_fast import ops
from sal_fast.data import augment, decode, load_table, splits, store
from sal_fast.data.augment import Augmentation
from sal_fast.data.varied import Batch, varied
from sal_fast.errors import InputError


@pytest.fixture(scope="module")
def samples(shared_folder: Any) -> store.Store:
    table = splits.assign(load_table(str(shared_folder)), np.random.default_rng(0))
    return store.build(table, store.StoreOptions(32, 32, decode.choose("torch", torch.device("cpu"))))


def batches(samples: store.Store, function: Any, order: list[int], size: int) -> dict[int, tuple[Any, Any]]:
    """Image and map of each row, by its number."""
    rows = torch.tensor([4, 9, 2, 17, 11])
    groups = list(torch.tensor(order).split(size))
    made = _unpacked(varied(samples, rows, samples.masks[rows], groups, Augmentation(function, 0, 1, 2)))
    return {
        int(rows[place]): pair
        for group, (images, maps) in zip(groups, made, strict=True)
        for place, *pair in zip(group.tolist(), images, maps, strict=True)
    }  # type: ignore[misc]


def _unpacked(made: Iterator[Batch]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for images, maps in made:
        yield images, maps.unpack() if isinstance(maps, ops.BitMask) else maps


def flipped(image: np.ndarray, map_: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    if rng.random() < 0.5:
        return image[:, ::-1], map_[:, ::-1]
    return image, map_


def test_a_plug_in_that_changes_nothing_is_none(samples: store.Store) -> None:
    plain = batches(samples, "none", [0, 1, 2, 3, 4], 2)
    same = batches(samples, lambda image, map_, rng: (image, map_), [0, 1, 2, 3, 4], 2)
    for row, (image, map_) in same.items():
        torch.testing.assert_close(image, plain[row][0])
        assert map_.dtype == torch.uint8
        assert set(map_.unique().tolist()) == {0, 255}


def test_draws_depend_on_the_image_and_not_on_its_batch(samples: store.Store) -> None:
    there = batches(samples, flipped, [0, 1, 2, 3, 4], 2)
    again = batches(samples, flipped, [3, 0, 4, 2, 1], 5)
    for row, (image, map_) in there.items():
        assert torch.equal(image, again[row][0])
        assert torch.equal(map_, again[row][1])
    drawn = [Augmentation(flipped, 0, 1, epoch).rng(samples.keys[4]).random() for epoch in range(9)]
    assert len(set(drawn)) == 9


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda image, map_, rng: image, r"must return an image and its map, got ndarray for .*/"),
        (
            lambda image, map_, rng: (image[:9], map_),
            r"the image as uint8 \[32, 32, 3\], got uint8 \[9, 32, 3\]",
        ),
        (lambda image, map_, rng: (image, map_ / 255), r"the map as uint8 \[32, 32\], got float64"),
    ],
)
def test_what_is_said_of_a_wrong_answer(samples: store.Store, function: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        batches(samples, function, [0, 1], 2)


def test_the_size_of_stored_images() -> None:
    sizes = [augment.stored_size(one, 56) for one in ("none", "standard", "vflip+turn", "mine.py:f")]
    assert sizes == [56, 64, 64, 56]
