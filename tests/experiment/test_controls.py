"""Control maps: what takes the place of people's maps in training, and that nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_runs import kept, rounds

from sal_fast.data.masks import Masks
from sal_fast.data.store import Store
from sal_fast.data.table import Table
from sal_fast.errors import InputError
from sal_fast.experiment import checks, references
from sal_fast.experiment.answers.controls import derangement, people_maps
from sal_fast.experiment.config import Config
from sal_fast.train import evaluate

KINDS = ("shuffled", "inverted", "random", "centre")
SIDE = 8
Tiny = Callable[..., Path]


def make_store(kind: str, order: np.ndarray | None = None) -> Store:
    """24 images: 18 to train, of which every sixth has no map, and 6 to test; binary, graded or both."""
    rng = np.random.default_rng(7)
    count = 24
    maps = rng.integers(1, 255, (count, SIDE, SIDE)).astype(np.uint8)
    binary = np.where(rng.random((count, SIDE, SIDE)) < 0.3, 255, 0).astype(np.uint8)
    chosen = {
        "bits": np.ones(count, bool),
        "graded": np.zeros(count, bool),
        "both": np.arange(count) % 2 == 0,
    }
    maps[chosen[kind]] = binary[chosen[kind]]
    has_map = np.arange(count) % 6 != 5
    maps[~has_map] = 0
    split = ["train"] * 18 + ["test"] * 6
    order = np.arange(count) if order is None else order
    ids = [f"image {number:02d}" for number in range(count)]
    table = Table(
        "made",
        ["a", "b"],
        [ids[i] for i in order],
        [Path(ids[i]) for i in order],
        [int(i) % 2 for i in order],
        [Path("mask") if has_map[i] else None for i in order],
        [split[i] for i in order],
    )
    return Store(
        table=table,
        images=None,  # type: ignore[arg-type]
        masks=Masks.pack(torch.from_numpy(maps[order])),
        has_mask=torch.from_numpy(has_map[order]),
        labels=torch.tensor(table.labels),
        keys=np.array([int(i) * 2**40 + 3 for i in order], dtype=np.uint64),
        fingerprint="",
    )


def pixels(masks: Masks) -> np.ndarray:
    return masks.unpack(torch.arange(len(masks))).numpy()


def by_id(store: Store, kind: str, seed: int = 0) -> dict[str, np.ndarray]:
    rows = store.rows("train")
    found = pixels(people_maps(store, rows, kind, seed))
    return {store.table.ids[row]: one for row, one in zip(rows.tolist(), found, strict=True)}


maps_of = pytest.mark.parametrize("maps", ["bits", "graded", "both"])


@maps_of
def test_none_replaces_nothing(maps: str) -> None:
    store = make_store(maps)
    rows = store.rows("train")
    assert np.array_equal(pixels(people_maps(store, rows, "none", 0)), store.masks.unpack(rows).numpy())


@maps_of
def test_shuffled_is_a_permutation_that_leaves_no_map_in_its_place(maps: str) -> None:
    store = make_store(maps)
    rows = store.rows("train")
    own = {
        store.table.ids[row]: one
        for row, one in zip(rows.tolist(), store.masks.unpack(rows).numpy(), strict=True)
    }
    found = by_id(store, "shuffled")
    with_map = [name for name in own if store.has_mask[store.table.ids.index(name)]]
    assert len({own[name].tobytes() for name in with_map}) == len(with_map) == 15  # all maps differ
    givers = {name: next(k for k in with_map if np.array_equal(own[k], found[name])) for name in with_map}
    assert sorted(givers.values()) == sorted(with_map)
    assert all(name != giver for name, giver in givers.items())
    assert all(not found[name].any() for name in own if name not in with_map)
    assert not all(np.array_equal(found[name], one) for name, one in by_id(store, "shuffled", 1).items())


@maps_of
@pytest.mark.parametrize("kind", KINDS)
def test_what_an_image_gets_depends_on_neither_order_nor_time(kind: str, maps: str) -> None:
    store = make_store(maps)
    whole = by_id(store, kind)
    turned = by_id(make_store(maps, np.random.default_rng(1).permutation(24)), kind)
    assert whole.keys() == turned.keys()
    assert all(np.array_equal(whole[name], turned[name]) for name in whole)
    for row in store.rows("train").tolist():  # one by one, as if each were a query of its own
        alone = pixels(people_maps(store, torch.tensor([row]), kind, 0))[0]
        assert np.array_equal(alone, whole[store.table.ids[row]])
    assert len(people_maps(store, torch.empty(0, dtype=torch.int64), kind, 0)) == 0


@maps_of
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_else_is_touched(kind: str, maps: str) -> None:
    """The masks of the store, so also those of test images, are the same bits afterwards."""
    store = make_store(maps)
    before = store.masks.digest()
    found = people_maps(store, store.rows("train"), kind, 0)
    assert store.masks.digest() == before
    own = store.masks[store.rows("train")]
    if kind != "shuffled":
        assert torch.equal(found.place >= 0, own.place >= 0)  # graded maps stay graded
    assert np.array_equal(
        pixels(found)[~store.has_mask[store.rows("train")].numpy()], np.zeros((3, SIDE, SIDE))
    )


@maps_of
def test_inverted_random_and_centre_by_their_definitions(maps: str) -> None:
    store = make_store(maps)
    rows = store.rows("train")[store.has_mask[store.rows("train")]]
    own = store.masks.unpack(rows).numpy()
    assert np.array_equal(pixels(people_maps(store, rows, "inverted", 0)), 255 - own)
    noise = pixels(people_maps(store, rows, "random", 0))
    centre = pixels(people_maps(store, rows, "centre", 0))
    middle = (SIDE - 1) / 2
    far = np.hypot(*(np.mgrid[:SIDE, :SIDE] - middle))
    for before, mixed, disc in zip(own, noise, centre, strict=True):
        assert np.array_equal(np.sort(mixed, axis=None), np.sort(before, axis=None))
        assert not np.array_equal(mixed, before)
        assert np.array_equal(np.sort(disc, axis=None), np.sort(before, axis=None))
        bright = disc.astype(int)
        assert all(
            bright[far < d - 1e-9].min(initial=255) >= bright[far > d - 1e-9].max() for d in np.unique(far)
        )
    orders = {tuple(np.argsort(mixed, axis=None, kind="stable")) for mixed in noise}
    assert len(orders) == len(noise)  # each image has an order of its own


@pytest.mark.parametrize("count", [0, 2, 3, 4, 50])
def test_derangements(count: int) -> None:
    for seed in range(20):
        order = derangement(count, np.random.default_rng(seed))
        assert sorted(order.tolist()) == list(range(count))
        assert not (order == np.arange(count)).any()


def test_all_derangements_occur_and_one_number_has_none() -> None:
    rng = np.random.default_rng(0)
    found = [tuple(derangement(4, rng).tolist()) for _ in range(900)]
    assert len(set(found)) == 9  # of 24 permutations
    assert min(found.count(one) for one in set(found)) > 60  # 100 each in the mean; the seed is fixed
    with pytest.raises(ValueError, match="cannot leave its place"):
        derangement(1, rng)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"regime": "b1"}, "uses no maps of people"),
        ({"regime": "segmenter", "segmenter_masks": "x"}, "uses no maps of people"),
        ({"annotator": "people"}, "--annotator people draws them while it runs"),
    ],
)
def test_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Config(control_maps="shuffled", **options).check()


def test_one_map_cannot_be_shuffled() -> None:
    table = make_store("bits").table
    few = Table(
        table.name,
        table.classes,
        table.ids,
        table.images,
        table.labels,
        [Path("mask"), *[None] * 23],
        table.split,
    )
    with pytest.raises(InputError, match="one training image has a mask"):
        checks.check_maps(Config(control_maps="shuffled"), few)


def test_runs_are_taught_other_maps_and_tested_on_the_same(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All maps of training differ, and the test's masks do not, whatever the network makes of them."""
    seen: dict[str, list[str]] = {}
    monkeypatch.setattr(
        "sal_fast.experiment.rounds.evaluate",
        lambda model, store, rows, *more: (
            seen.setdefault(kind, []).append(store.masks[rows].digest())
            or evaluate(model, store, rows, *more)
        ),
    )
    folders = {}
    for kind in ("none", *KINDS):
        folders[kind] = tiny(tmp_path / kind, control_maps=kind, regime="b2", epochs=1, stop_fraction=0.5)
    assert len({one for found in seen.values() for one in found}) == 1
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders.values()]
    assert len({(one["dice_floor"], one["dice_disc"], one["dice_mean_mask"]) for one in summaries}) == 1
    assert len({json.dumps(rounds(folder)) for folder in folders.values()}) == 5
    starts = {
        json.dumps(json.loads((folder / "run.json").read_text())["start"]) for folder in folders.values()
    }
    assert len(starts) == 1


@pytest.mark.full
def test_a_control_run_goes_on_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    options = {"control_maps": "shuffled", "epochs": 1}
    whole = tiny(tmp_path / "whole", **options)
    tiny(tmp_path / "whole", **options)
    cut = tmp_path / "cut"
    from sal_fast.experiment.run import run

    config = json.loads((whole / "run.json").read_text())["config"]
    run(Config.of(config | {"out": str(cut)}), until=1)
    run(Config.of(config | {"out": str(cut)}))
    assert rounds(cut) == rounds(whole)
    assert kept(cut) == kept(whole)
    with pytest.raises(InputError, match="control_maps"):
        tiny(cut, **{**options, "control_maps": "none"})


def dice(shown: np.ndarray, store: Store) -> float:
    """The mean over test images of TP / N, for a map's N highest pixels (lowest index first), in float64."""
    found = []
    for row in store.rows("test").tolist():
        mask = store.masks.unpack(torch.tensor([row]))[0].numpy().astype(np.float64).ravel() / 255
        n = round(mask.sum())
        if n:
            best = set(np.argsort(-mask, kind="stable")[:n].tolist())
            found.append(len(best & set(np.argsort(-shown.ravel(), kind="stable")[:n].tolist())) / n)
    return float(np.mean(found))


@maps_of
def test_maps_that_look_at_no_image(maps: str) -> None:
    store = make_store(maps)
    train = store.rows("train")[store.has_mask[store.rows("train")]]
    middle = (SIDE - 1) / 2
    y, x = np.mgrid[:SIDE, :SIDE] - middle
    found = references.dices(store)
    assert found["dice_disc"] == pytest.approx(dice(-(y**2 + x**2), store), abs=1e-7)
    mean = store.masks.unpack(train).numpy().astype(np.float64).mean(axis=0)
    assert found["dice_mean_mask"] == pytest.approx(dice(mean, store), abs=1e-7)


def test_no_masks_no_references() -> None:
    store = make_store("bits")
    bare = Store(**{**vars(store), "masks": Masks.empty(24, SIDE, torch.device("cpu"))})
    assert references.dices(bare) == {"dice_disc": None, "dice_mean_mask": None}
