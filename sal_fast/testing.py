"""Hold a plug-in of your own to the contract that the ones in this package pass (docs/plugins.md).

    from sal_fast.testing import check_criterion
    check_criterion("mine.py:f")

Each check takes the object, or the text that names it to `sal-fast run`. It runs the object on small made-up
inputs (a data set: on its own files) and raises AssertionError with a sentence that says which rule was
broken. It leaves the global random generators as they were.
"""

import contextlib
import inspect
import random
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sal_fast import plugins, query
from sal_fast.data.augment import Function
from sal_fast.errors import InputError
from sal_fast.query import Labelled, Pool, Query

SEED = 3
DRAWS, AGREEMENT = 32, 0.8  # of an augmentation: the draws that are looked at, the mean correlation
CLASSES, WIDTH, SIDE = 4, 8, 16  # of the made-up pool: classes, features of an image, pixels of a side


# --- shared -----------------------------------------------------------------------------------------------


def _loaded(kind: plugins.Kind, given: Any) -> Callable[..., Any]:
    function = plugins.load(kind, given) if isinstance(given, str) else given
    assert callable(function), f"expected a function, got {type(function).__name__}"
    return function


@contextlib.contextmanager
def _own_random_state(seed: int = 0) -> Iterator[None]:
    """Put the global generators of random, numpy and torch in another state, and back at the end."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002


def _repeated(call: Callable[[], Any]) -> Any:
    """What a call gives with the global generators in another state; AssertionError if it moves them."""
    with _own_random_state(1):
        before = _random_state()
        answer = call()
        assert _random_state() == before, (
            "the global random generators of random, numpy and torch must stay as they are; draw from one of "
            "your own"
        )
    return answer


def _random_state() -> tuple[Any, ...]:
    _, words, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), np.asarray(words).tolist(), rest, torch.get_rng_state().tolist()


# --- criteria ---------------------------------------------------------------------------------------------


@_own_random_state()
def check_criterion(criterion: str | query.Criterion) -> None:
    """Check a criterion `f(pool, k, seed)`; see `sal_fast.query.Criterion`.

    * It returns k positions of the pool, each once, for pools of any size and for k up to that size, whether
      or not something is labelled; scores, if there are any, are finite and do not rise.
    * The same pool and seed give the same query, whatever state the global random generators are in, and
      these stay as they are.
    * The query does not depend on the order of the rows in the pool, even where rows cannot be told apart.
    * The pool stays as it is, and the model in eval mode.
    """
    for size, labelled in ((50, 6), (50, 0), (2, 6), (1, 6)):
        for k in sorted({0, 1, 7, size, size + 30}):
            assert bool((_asked(criterion, _pool(size, labelled), k).scores.diff() <= 0).all()), (
                "scores must not rise: a higher score means that an image is asked for earlier, and the "
                "positions stand in the order in which they are asked for"
            )
    for tied in (False, True):
        pool = _pool(50, 6, tied=tied)
        first = _asked(criterion, pool, 7)
        again = _repeated(partial(_asked, criterion, pool, 7))
        rule = "the same pool and seed must give the same query; draw from a generator made from `seed`"
        assert torch.equal(first.positions, again.positions), rule
        assert torch.equal(first.scores, again.scores), rule
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(1))
        moved = _asked(criterion, _pool(50, 6, tied=tied, order=order), 7)
        assert torch.equal(order[moved.positions], first.positions), (
            "the query must not depend on the order of the rows in the pool"
            + (", even where rows cannot be told apart" if tied else "")
            + "; a criterion that declares any_order=True must leave ties to `pool.highest`"
        )
    _check_untouched(criterion)


def _asked(criterion: str | query.Criterion, pool: Pool, k: int) -> Query:
    try:
        return query.select(criterion, pool, k, seed=SEED)
    except InputError as error:
        raise AssertionError(str(error)) from error
    except Exception as error:
        raise AssertionError(
            f"a criterion must give {min(k, len(pool))} positions of a pool of {len(pool)} images with "
            f"{len(pool.labelled.ids)} labelled; this one raised {error!r}"
        ) from error


def _check_untouched(criterion: str | query.Criterion) -> None:
    order = query.key_order(_pool(50, 6).ids, SEED)  # so that the criterion is given no copy
    before, given = _pool(50, 6, order=order), _pool(50, 6, order=order)
    _asked(criterion, given, 7)
    assert not given.model.training, "a criterion must leave the model in eval mode"
    for name in ("logits", "features"):
        same = torch.equal(getattr(before, name), getattr(given, name))
        assert same, f"a criterion must not change the pool; it changed pool.{name}"
    for name in ("labels", "features"):
        same = torch.equal(getattr(before.labelled, name), getattr(given.labelled, name))
        assert same, f"a criterion must not change the pool; it changed pool.labelled.{name}"


def _pool(size: int, labelled: int, *, tied: bool = False, order: Tensor | None = None) -> Pool:
    """A made-up pool with every field; with rows of one class equal and saturated if `tied`."""
    draws = torch.Generator().manual_seed(0)
    classes = torch.arange(size) * 3 // size
    logits = torch.randn(size, CLASSES, generator=draws)
    features = torch.randn(size, WIDTH, generator=draws)
    pictures = torch.randint(0, 256, (size, SIDE, SIDE, 3), generator=draws).byte()
    if tied:
        logits, features = 1000 * torch.eye(CLASSES)[classes], torch.ones(size, WIDTH)
        pictures = torch.zeros_like(pictures)
    order = torch.arange(size) if order is None else order
    return Pool(
        [f"image {row}" for row in order.tolist()],
        logits=logits[order],
        features=features[order],
        labelled=Labelled(
            [f"known {row}" for row in range(labelled)],
            torch.arange(labelled) % CLASSES,
            torch.randn(labelled, WIDTH, generator=draws),
        ),
        images=lambda positions: pictures[order[positions]],
        model=_Model().eval(),
        classes=[f"class {label}" for label in range(CLASSES)],
    )


class _Model(nn.Module):
    """An accuracy model as small as can be: `model(images)` gives logits and features."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body, self.head = nn.Conv2d(3, WIDTH, 3, stride=2), nn.Linear(WIDTH, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        return self.body(images).relu()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return self.head(features.mean((-2, -1))), features


# --- generators -------------------------------------------------------------------------------------------


@_own_random_state()
def check_generator(generator: str | Callable[..., Any]) -> None:
    """Check a generator `f(pictures, labels)`, which draws maps (docs/generators.md).

    * It returns one map for each picture, `[h, w]` of any size, bool or floating, and finite. It takes
      pictures of different sizes together, one picture alone, and the label -1 of an image whose class is
      not known.
    * The same pictures and labels give the same maps, whatever state the global random generators are in, and
      these stay as they are.
    * The pictures stay as they are.
    """
    function = _loaded("generator", generator)
    draws = np.random.default_rng(0)
    shapes = [(40, 40), (31, 64), (90, 20), (16, 16)]
    pictures = [draws.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    pictures.append(np.zeros((24, 24, 3), dtype=np.uint8))  # nothing to tell apart
    labels = [0, 1, 2, -1, 0]
    for count in (len(pictures), 1):
        given = [picture.copy() for picture in pictures[:count]]
        maps = _maps(function, given, labels[:count])
        same = all(map(np.array_equal, given, pictures))
        assert same, "a generator must not change the pictures; work on a copy"
        again = _repeated(partial(_maps, function, given, labels[:count]))
        assert all(map(np.array_equal, maps, again)), (
            "the same pictures and labels must give the same maps; draw from a generator with a fixed seed"
        )


def _maps(function: Callable[..., Any], pictures: list[np.ndarray], labels: list[int]) -> list[np.ndarray]:
    try:
        given = list(function(pictures, labels))
    except Exception as error:
        raise AssertionError(
            f"a generator must draw maps of {len(pictures)} pictures of different sizes, with -1 for a label "
            f"that is not known; this one raised {error!r}"
        ) from error
    assert len(given) == len(pictures), (
        f"expected one map for each of {len(pictures)} pictures, got {len(given)}"
    )
    maps = [np.asarray(one) for one in given]
    for one in maps:
        floating = np.issubdtype(one.dtype, np.floating)
        assert one.ndim == 2 and one.size and (floating or one.dtype == bool), (  # noqa: PT018
            f"expected maps [h, w] of bool (a mask) or of floating numbers (a heat map), got {one.dtype} "
            f"{list(one.shape)}"
        )
        assert np.isfinite(one).all(), "a map contains NaN or infinity; expected finite numbers"
    return maps


# --- augmentations ----------------------------------------------------------------------------------------


@_own_random_state()
def check_augmentation(augmentation: str | Function) -> None:
    """Check an augmentation `f(image, map, rng)` (docs/plugins.md).

    * It returns an image, uint8 `[F, F, 3]`, and its map, uint8 `[F, F]`, in the sizes that it was given.
    * One draw moves both: what the map marks before, it marks afterwards.
    * A map that marks nothing still marks nothing, because it stands for an image without a map.
    * Generators with the same seed give the same, whatever state the global random generators are in, and
      these stay as they are.
    * The image and the map that it was given stay as they are.
    """
    function = _loaded("augmentation", augmentation)
    for side in (64, 33):
        image, marked = _spots(side)
        for map_ in (marked, np.zeros_like(marked)):
            given = image.copy(), map_.copy()
            made = _varied(function, *given, SEED)
            same = np.array_equal(given[0], image) and np.array_equal(given[1], map_)
            assert same, "an augmentation must not change the image or the map; work on copies"
            again = _repeated(partial(_varied, function, image, map_, SEED))
            assert all(map(np.array_equal, made, again)), (
                "generators with the same seed must give the same image and map; draw from `rng` alone"
            )
            assert map_.any() or not made[1].any(), "a map that marks nothing must still mark nothing"
    agreed = [_agreement(*_varied(function, *_spots(96), seed)) for seed in range(DRAWS)]
    known = [one for one in agreed if one is not None]
    assert known, "the map is the same everywhere in every draw; expected some that mark what it marked"
    assert sum(known) / len(known) > AGREEMENT, (
        "the map must be moved as the image is: it no longer marks what it marked before"
    )


def _spots(side: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark image with five bright discs, and the map that marks them."""
    y, x = np.mgrid[:side, :side] / side
    places = ((0.3, 0.25), (0.2, 0.7), (0.55, 0.5), (0.75, 0.2), (0.7, 0.8))
    marked = sum((y - down) ** 2 + (x - right) ** 2 < 0.09**2 for down, right in places) > 0
    image = np.where(marked[..., None], (220, 190, 160), (60, 50, 40)).astype(np.uint8)
    return image, marked.astype(np.uint8) * 255


def _varied(function: Function, image: np.ndarray, map_: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
    from sal_fast.data.varied import call

    try:
        return call(function, image, map_, np.random.default_rng(seed), "a made-up image")
    except InputError as error:
        raise AssertionError(str(error).removeprefix("--augment: ")) from error
    except Exception as error:
        raise AssertionError(
            f"an augmentation must take an image {list(image.shape)}, its map and a generator; this one "
            f"raised {error!r}"
        ) from error


def _agreement(image: np.ndarray, map_: np.ndarray) -> float | None:
    """The correlation of brightness and map, without its sign; None if one of them is the same everywhere."""
    grey, marked = image.mean(-1).ravel(), map_.astype(float).ravel()
    if grey.std() == 0 or marked.std() == 0:
        return None
    return abs(float(np.corrcoef(grey, marked)[0, 1]))


# --- networks ---------------------------------------------------------------------------------------------


@_own_random_state()
def check_network(network: str | Callable[[int], nn.Module]) -> None:
    """Check a network `f(classes) -> nn.Module`; see `sal_fast.models.backbone`.

    * `features(images)` turns float32 `[B, 3, H, W]` into floating maps `[B, C, h, w]`; `head` is an
      `nn.Linear` from C to the number of classes. The logits are `head(features.mean((-2, -1)))`.
    * The gradient of the logits reaches the head and the weights behind the features.
    * In eval mode the same images give the same features, and an image's features do not depend on the other
      images of the batch.
    * Two networks made after `torch.manual_seed` with the same seed have the same weights.
    """
    from sal_fast import models

    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for classes in (2, 7):
        try:
            model, again = (models.build(network, classes, seed=0) for _ in range(2))
        except InputError as error:
            raise AssertionError(str(error)) from error
        for (name, value), other in zip(
            model.net.state_dict().items(), again.net.state_dict().values(), strict=True
        ):
            assert torch.equal(value, other), f"two networks made with the same seed differ in {name}"
        features = model.features(images)
        assert features.is_floating_point(), f"`features` must be floating, got {features.dtype}"
        expected, shape = [len(images), model.head.in_features], list(features.shape)
        assert features.ndim == 4 and shape[:2] == expected, (  # noqa: PT018
            f"`features` must be [B, C, h, w] with [B, C] = {expected}, as `head` takes them, got {shape}"
        )
        _check_gradient(model, images)
        _check_eval(model.eval(), images)


def _check_gradient(model: Any, images: Tensor) -> None:
    model.head(model.features(images).mean((-2, -1))).square().sum().backward()
    reached = [one for one in model.parameters() if one.grad is not None and bool(one.grad.any())]
    ends = [model.head.weight, model.head.bias]
    assert any(one is ends[0] for one in reached), "the gradient of the logits does not reach head.weight"
    assert any(all(one is not end for end in ends) for one in reached), (
        "the gradient of the logits reaches no weight behind the features; are they detached?"
    )


@torch.no_grad()
def _check_eval(model: Any, images: Tensor) -> None:
    first = model.features(images)
    again = model.features(images)
    assert torch.equal(first, again), "in eval mode the same images must give the same features"
    alone = model.features(images[:1])
    assert torch.allclose(alone, first[:1], rtol=1e-3, atol=1e-3 * float(first.abs().max())), (
        "in eval mode an image's features must not depend on the other images of the batch"
    )


# --- data sets, readers and trackers ---------------------------------------------------------------------


def check_data(data: str | Callable[[Path | None], Any], root: Path | None = None) -> None:
    """Check a data set `f(root) -> sal_fast.data.Table`; `root` is what `--root` would name.

    * Ids are unique, in ascending order, and can be file names below a folder.
    * Every column has one entry for each id. Labels are class numbers, or -1 where the class is not known,
      and class names are unique.
    * Image files exist, and so do mask files, which may be None.
    * Splits are train, val and test for all images, or empty for all; train and test are not empty.
    * Reading twice gives the same.
    """
    function = _loaded("data", data)
    _check_table(lambda: function(root))


def check_reader(reader: str | type, path: Path) -> None:
    """Check a reader, a subclass of `sal_fast.data.readers.Reader`, on a file or folder of its format.

    * `looks` gives a `Look` with a reason for the path, and None for an empty folder.
    * What `read` gives makes a table that keeps the rules of `check_data`.
    """
    from sal_fast.data import readers

    spec = reader if isinstance(reader, str) else plugins.hand_over("reader", reader)
    made = plugins.load("reader", spec)()
    assert isinstance(made, readers.Reader), f"expected a Reader, got {type(made).__name__}"
    with tempfile.TemporaryDirectory() as empty:
        assert made.looks(Path(empty)) is None, "an empty folder looks right to it; expected None"
    look = made.looks(path)
    assert isinstance(look, readers.Look), f"`looks` of {path}: expected a Look, got {look!r}"
    assert look.why, "a Look must say why"
    _check_table(lambda: readers.read(path, readers.Options(spec)))


def _check_table(read: Callable[[], Any]) -> None:
    from sal_fast.data import table

    found = read()
    assert isinstance(found, table.Table), f"expected a sal_fast.data.Table, got {type(found).__name__}"
    assert len(found), "the table is empty"
    optional = ("split", "group", "subgroup")
    columns = {name: getattr(found, name) for name in ("ids", "images", "labels", "masks", *optional)}
    for name, column in columns.items():
        empty = name in optional and not column
        assert empty or len(column) == len(found), f"expected {len(found)} {name}, got {len(column)}"
    assert list(found.ids) == sorted(set(found.ids)), "ids must be unique and in ascending order"
    for one in found.ids:
        assert table.names_a_file(one), f"id {one!r} cannot be the name of a file below a folder"
    assert len(set(found.classes)) == len(found.classes), "class names must be unique"
    known = range(table.UNLABELLED, len(found.classes))
    for label in found.labels:
        assert label in known, f"label {label}: expected -1 (not known) to {len(found.classes) - 1}"
    masks = [mask if isinstance(mask, tuple) else (mask,) for mask in found.masks if mask is not None]
    for path in (*found.images, *(one for several in masks for one in several)):
        assert Path(path).exists(), f"file not found: {path}"
    splits = set(found.split)
    assert splits <= {""} or {"train", "test"} <= splits <= set(table.SPLITS), (
        f"splits must be train, val or test in every row or empty in all, got {sorted(splits)}"
    )
    again = read()
    for name, column in columns.items():
        assert getattr(again, name) == column, f"reading twice must give the same; {name} differ"


def check_tracker(tracker: str | Callable[[Any, Any], None], run: Any = None) -> None:
    """Check a tracker `f(run, round)`, which is called after each finished round.

    * It takes two arguments by position, and returns nothing. It may be a class, of which every run makes one
      object without arguments.
    * If it has a method `epoch`, this takes two arguments by position, too: the run and an `Epoch`. If it has
      a method `close`, this takes none.

    Args:
        run: a run as `sal_fast.load` gives it. The tracker is called for each of its rounds; without a run it
            is not called.
    """
    function = _loaded("tracker", tracker)
    if isinstance(function, type):
        function = function()
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise AssertionError(f"a tracker must take two arguments, the run and the round: {error}") from None
    for name, given in (("epoch", (None, None)), ("close", ())):
        if hasattr(function, name):
            try:
                inspect.signature(getattr(function, name)).bind(*given)
            except TypeError as error:
                raise AssertionError(
                    f"a tracker's {name} must take {len(given)} arguments by position: {error}"
                ) from None
    for one in () if run is None else run.rounds:
        answer = function(run, one)
        assert answer is None, f"a tracker must return nothing, got {answer!r}"
