"""Plug-ins from outside: a file, a module, an installed package; and what users are told of broken ones."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sal_fast import plugins, query, testing
from sal_fast.data import Sample, augment, load_table, make_table
from sal_fast.data.readers import Look, Options, Reader
from sal_fast.errors import InputError

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "plugins"
OBJECTS: dict[plugins.Kind, tuple[str, str]] = {
    "criterion": ("criterion", "rare_first"),
    "data": ("dataset", "side_by_side"),
    "reader": ("reader", "Lines"),
    "generator": ("generator", "unlike_the_edge"),
    "augmentation": ("augmentation", "shaken"),
    "network": ("network", "four_convolutions"),
    "tracker": ("tracker", "append"),
}
WAYS = ("file", "module", "entry point")


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path, whose modules and installed packages are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    plugins.registered.cache_clear()
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("tried_out", "broken") or name.startswith("sal_fast_plugin_"):
            del sys.modules[name]
    plugins.registered.cache_clear()
    importlib.invalidate_caches()


def installed(folder: Path, name: str, entry_points: str) -> None:
    """What pip leaves of a package."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points)
    importlib.invalidate_caches()
    plugins.registered.cache_clear()


def brought(kind: plugins.Kind, way: str, outside: Path) -> str:
    """An example as a user brings it in one of the ways; how it is named then."""
    module, name = OBJECTS[kind]
    if way == "file":
        return f"{EXAMPLES / module}.py:{name}"
    package = outside / "tried_out"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / f"{module}.py").write_text((EXAMPLES / f"{module}.py").read_text())
    if way == "module":
        return f"tried_out.{module}:{name}"
    installed(outside, "tried_out", f"[{plugins.GROUPS[kind]}]\nmine = tried_out.{module}:{name}\n")
    return "mine"


def pictures(root: Path) -> Path:
    """Six small pictures of two classes; those of one class have masks."""
    draws = np.random.default_rng(0)
    for name in ("cat-1", "cat-2", "cat-3", "dog-1", "dog-2", "dog-3"):
        Image.fromarray(draws.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(root / f"{name}.png")
        if name.startswith("cat"):
            Image.fromarray(np.full((12, 16), 255, dtype=np.uint8)).save(root / f"{name}.mask.png")
    return root


def test_an_example_is_one_short_file() -> None:
    files = sorted(EXAMPLES.glob("*.py"))
    assert [path.stem for path in files] == sorted(module for module, _ in OBJECTS.values())
    assert all(len(path.read_text().splitlines()) <= 30 for path in files)


@pytest.mark.parametrize("way", WAYS)
def test_a_criterion(way: str, outside: Path) -> None:
    spec = brought("criterion", way, outside)
    testing.check_criterion(spec)
    assert query.needs_of(spec) == {"logits", "labelled"}
    probs = torch.tensor([[0.5, 0.4, 0.1], [0.1, 0.5, 0.4], [0.9, 0.1, 0.0]])
    known = query.Labelled(["x", "y"], torch.tensor([0, 0]))
    pool = query.Pool(["a", "b", "c"], logits=probs.log().clamp(min=-99), labelled=known)
    found = query.select(spec, pool, 3, seed=0)
    assert found.positions.tolist() == [1, 0, 2]  # class 1 was never labelled, class 0 twice
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.9 / 3, 0.2 / 3]).double())


@pytest.mark.parametrize("way", WAYS)
def test_a_data_set(way: str, outside: Path) -> None:
    spec = brought("data", way, outside)
    root = outside / "pictures"
    root.mkdir()
    testing.check_data(spec, pictures(root))
    table = plugins.load("data", spec)(root)
    assert table.classes == ["cat", "dog"]
    assert table.ids == ["cat-1", "cat-2", "cat-3", "dog-1", "dog-2", "dog-3"]
    assert (
        table.masks
        == [root / "cat-1.mask.png", root / "cat-2.mask.png", root / "cat-3.mask.png"] + [None] * 3
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_reader(way: str, outside: Path) -> None:
    spec = brought("reader", way, outside)
    root = outside / "pictures"
    root.mkdir()
    pictures(root)
    (root / "labels.txt").write_text("cat-1.png cat\ndog-1.png dog\ngone.png dog\n")
    testing.check_reader(spec, root)
    table = load_table(str(root), options=Options(spec))
    assert (table.ids, table.classes) == (["cat-1", "dog-1"], ["cat", "dog"])
    assert "not used: images in labels.txt that are not there: 1, such as gone.png" in table.notes
    if way == "entry point":
        assert load_table(str(root)).notes[0] == "read as mine, because it has a labels.txt"


class Eager(Reader):
    """A reader that takes everything for its own."""

    def looks(self, path: Path) -> Look | None:
        return Look("it is there")


def test_rules_of_readers(outside: Path) -> None:
    with pytest.raises(AssertionError, match="an empty folder looks right to it"):
        testing.check_reader(Eager, outside)
    with pytest.raises(AssertionError, match="expected a Reader, got dict"):
        testing.check_reader(dict, outside)
    with pytest.raises(AssertionError, match=r"`looks` of .*: expected a Look, got None"):
        testing.check_reader("coco", outside)


@pytest.mark.parametrize("way", WAYS)
def test_a_generator(way: str, outside: Path) -> None:
    spec = brought("generator", way, outside)
    testing.check_generator(spec)
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    picture[3:5, 3:5] = 200
    (heat,) = plugins.load("generator", spec)([picture], [0])
    assert (heat > 0.5 * heat.max()).sum() == 4


@pytest.mark.parametrize("way", WAYS)
def test_an_augmentation(way: str, outside: Path) -> None:
    spec = brought("augmentation", way, outside)
    testing.check_augmentation(spec)
    image, map_ = np.full((16, 16, 3), 128, dtype=np.uint8), np.eye(16, dtype=np.uint8) * 255
    noisy, moved = plugins.load("augmentation", spec)(image, map_, np.random.default_rng(0))
    assert noisy.std() > 0
    assert sorted(moved.sum(0)) == sorted(map_.sum(0))


@pytest.mark.parametrize("way", WAYS)
def test_a_network(way: str, outside: Path) -> None:
    spec = brought("network", way, outside)
    testing.check_network(spec)
    assert plugins.load("network", spec)(3).features(torch.zeros(2, 3, 32, 32)).shape == (2, 64, 4, 4)


def test_networks_of_this_package_pass_the_same_check() -> None:
    testing.check_network("resnet18")


@pytest.mark.parametrize("way", WAYS)
def test_a_tracker(way: str, outside: Path) -> None:
    spec = brought("tracker", way, outside)
    rounds = [SimpleNamespace(round=i, labelled=10 * i, accuracy=0.5) for i in range(3)]
    testing.check_tracker(spec, SimpleNamespace(path=outside / "run", rounds=rounds))
    assert len((outside / "all-rounds.jsonl").read_text().splitlines()) == 3


# --- the loader -------------------------------------------------------------------------------------------


def test_the_names_of_an_installed_package_stand_after_ours(outside: Path) -> None:
    ours = plugins.names("criterion")
    spec = brought("criterion", "entry point", outside)
    assert plugins.names("criterion") == (*ours, spec)
    plugins.check("criterion", spec)
    assert not any(name.startswith("tried_out") for name in sys.modules), "a name was imported before `load`"


def test_two_packages_may_not_share_a_name(outside: Path) -> None:
    installed(outside, "tried_out", "[sal_fast.criteria]\nmargin = tried_out:f\n")
    with pytest.raises(
        InputError, match=r"register the criterion 'margin': sal_fast.*tried_out:f; uninstall"
    ):
        plugins.names("criterion")


def test_a_digest_is_that_of_the_source(outside: Path) -> None:
    found = {}
    for way in WAYS:
        folder = outside / way.replace(" ", "")
        folder.mkdir()
        sys.path.insert(0, str(folder))
        found[way] = plugins.digest(brought("criterion", way, folder), "criterion")
        sys.path.remove(str(folder))
        if way == "module":
            importlib.invalidate_caches()
    assert len(set(found.values())) == 1
    assert None not in found.values()
    assert plugins.digest("margin", "criterion") is None  # it has the version of this package


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("margins", r"unknown criterion 'margins'; did you mean 'margin'\? \(expected one of random, margin"),
        ("xyz", r"unknown criterion 'xyz' \(expected one of .*\), or file.py:object"),
        ("absent.py:f", r"file not found: .*absent\.py"),
        ("no_such_package:f", "no_such_package:f: it cannot be imported .*No module named"),
        ("raises.py:f", r"raises\.py:f: it cannot be imported \(ZeroDivisionError\('division by zero'\)\)"),
        ("typo.py:f", r"typo\.py:f: it cannot be imported \(SyntaxError"),
        ("fine.py:g", r"fine\.py:g: fine\.py has no 'g'"),
        ("fine.py:number", "expected a function"),
        ("fine.py", r"unknown criterion 'fine\.py'"),
    ],
)
def test_what_is_said_of_a_broken_one(
    spec: str, said: str, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(outside)
    Path("raises.py").write_text("1 / 0\n")
    Path("typo.py").write_text("def f(:\n")
    Path("fine.py").write_text("number = 3\n")
    with pytest.raises(InputError, match=said):
        query.loaded(spec)


def test_a_file_that_changed_is_read_anew(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytecode in a cache may be that of an older file of the same size and second."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = outside / "mine.py"
    for value in (1, 2):
        path.write_text(f"f = {value}\n")
        os.utime(path, (1_000_000_000, 1_000_000_000))
        assert plugins.load("criterion", f"{path}:f") == value
    assert not (outside / "__pycache__").exists()


def test_a_script_that_ends_the_program_is_named(outside: Path) -> None:
    (outside / "script.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(InputError, match=r"script\.py:f: it cannot be imported \(SystemExit\(0\)\)"):
        plugins.load("criterion", f"{outside}/script.py:f")


# --- what authors are told --------------------------------------------------------------------------------


def zeros(pictures: Any, labels: Any) -> Any:
    return [np.zeros((2, 2)) for _ in pictures]


def painted(pictures: Any, labels: Any) -> Any:
    for picture in pictures:
        picture[0] = 0
    return zeros(pictures, labels)


def one_less(pictures: Any, labels: Any) -> Any:
    return zeros(pictures, labels)[1:]


def always(one: Any) -> Any:
    return lambda pictures, labels: [one for _ in pictures]


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (one_less, "one map for each of 5 pictures, got 4"),
        (always(np.zeros((2, 2), int)), r"got int64 \[2, 2\]"),
        (always(np.zeros((1, 2, 2))), r"maps \[h, w\].*got float64 \[1, 2, 2\]"),
        (always(np.full((2, 2), np.nan)), "NaN or infinity"),
        (lambda pictures, labels: np.stack(pictures)[..., 0] > 9, "different sizes.*raised ValueError"),
        (painted, "must not change the pictures"),
        (lambda pictures, labels: [np.random.rand(2, 2) for _ in pictures], "must stay as they are"),  # noqa: NPY002
    ],
)
def test_rules_of_generators(function: Any, rule: str) -> None:
    testing.check_generator(zeros)
    with pytest.raises(AssertionError, match=rule):
        testing.check_generator(function)


def kept(image: Any, map_: Any, rng: Any) -> Any:
    return image, map_


def blackened(image: Any, map_: Any, rng: Any) -> Any:
    image[0] = 0
    return image, map_


def tilted(image: Any, map_: Any, rng: Any) -> Any:
    """The image is rotated and the map is not."""
    angle = torch.tensor([float(rng.uniform(-15, 15))])
    pixels = torch.from_numpy(image).movedim(-1, 0)[None].float()
    return augment.rotated(pixels, angle, "bilinear")[0].movedim(0, -1).to(torch.uint8).numpy(), map_


def rotated(image: Any, map_: Any, rng: Any) -> Any:
    angle = torch.tensor([float(rng.uniform(-15, 15))])
    pixels = torch.from_numpy(np.dstack([image, map_])).movedim(-1, 0)[None].float()
    both = augment.rotated(pixels, angle, "bilinear")[0].movedim(0, -1).to(torch.uint8).numpy()
    return both[..., :3], both[..., 3]


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (lambda image, map_, rng: image, "an image and its map, got ndarray"),
        (lambda image, map_, rng: (image / 255, map_), r"the image as uint8 .*got float64"),
        (lambda image, map_: (image, map_), "and a generator; this one raised TypeError"),
        (lambda image, map_, rng: (image, map_ | 1), "must still mark nothing"),
        (lambda image, map_, rng: (image[:, ::-1], map_), "moved as the image is"),
        (lambda image, map_, rng: (image, map_ * 0), "the same everywhere in every draw"),
        (tilted, "moved as the image is"),
        (blackened, "must not change the image or the map"),
        (lambda image, map_, rng: (image + np.uint8(np.random.rand() * 9), map_), "must stay as they are"),  # noqa: NPY002
    ],
)
def test_rules_of_augmentations(function: Any, rule: str) -> None:
    testing.check_augmentation(kept)
    testing.check_augmentation(rotated)
    with pytest.raises(AssertionError, match=rule):
        testing.check_augmentation(function)


class Net(nn.Module):
    def __init__(self, classes: int, head: int = 4) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3, 8), nn.Linear(head, classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images)


class Flat(Net):
    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images).mean((-2, -1))


class Detached(Net):
    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images).detach()


class Dropping(Net):
    def features(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.body(images))


class Shifting(Net):
    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images) - self.body(images).mean(0)


def seeded_from_outside(classes: int) -> nn.Module:
    torch.seed()
    return Net(classes)


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (lambda classes: nn.Linear(3, classes), r"expected an nn.Module with features.* got Linear"),
        (lambda classes: Net(5), "a head with 2 outputs, got 5"),
        (lambda classes: Net(classes, head=5), r"\[B, C\] = \[4, 5\].*got \[4, 4, 8, 8\]"),
        (Flat, r"\[B, C\] = \[4, 4\].*got \[4, 4\]"),
        (Detached, "no weight behind the features"),
        (Dropping, "in eval mode the same images"),
        (Shifting, "must not depend on the other images"),
        (seeded_from_outside, "same seed differ in body.weight"),
        (lambda classes: None, r"expected an nn.Module with features.* got NoneType"),
    ],
)
def test_rules_of_networks(function: Any, rule: str) -> None:
    testing.check_network(Net)
    with pytest.raises(AssertionError, match=rule):
        testing.check_network(function)


@dataclass
class Changing:
    """A data set that is broken in one field."""

    changes: dict[str, Any]

    def __call__(self, root: Path) -> Any:
        samples = [Sample(path.stem, path, path.stem[:3]) for path in root.glob("???-?.png")]
        return replace(make_table("set", samples), **self.changes)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"ids": ["b", "a", "c", "d", "e", "f"]}, "ascending order"),
        ({"ids": ["a", "a", "c", "d", "e", "f"]}, "unique"),
        ({"ids": ["../a", "b", "c", "d", "e", "f"]}, r"id '\.\./a' cannot be the name of a file"),
        ({"labels": [0, 0, 0, 1, 1, 2]}, r"label 2: expected -1 \(not known\) to 1"),
        ({"labels": [0]}, "expected 6 labels, got 1"),
        ({"classes": ["cat", "cat"]}, "class names must be unique"),
        ({"images": [Path("absent.png")] * 6}, "file not found: absent.png"),
        ({"split": ["train"] * 6}, "train, val or test in every row or empty in all, got"),
        ({"split": ["train", "", "test", "train", "train", "test"]}, "or empty in all"),
    ],
)
def test_rules_of_data_sets(changes: dict[str, Any], rule: str, tmp_path: Path) -> None:
    pictures(tmp_path)
    testing.check_data(Changing({}), tmp_path)
    testing.check_data(Changing({"split": ["train", "val", "test", "train", "train", "test"]}), tmp_path)
    with pytest.raises(AssertionError, match=rule):
        testing.check_data(Changing(changes), tmp_path)
    with pytest.raises(AssertionError, match=r"expected a sal_fast\.data\.Table, got list"):
        testing.check_data(lambda root: [], tmp_path)


def test_rules_of_trackers() -> None:
    run = SimpleNamespace(rounds=[1, 2])
    testing.check_tracker(print, run)
    testing.check_tracker("table")  # a class: every run has one of its own
    testing.check_tracker("log")
    with pytest.raises(AssertionError, match="two arguments"):
        testing.check_tracker(lambda run: None)
    with pytest.raises(AssertionError, match="return nothing, got 2"):
        testing.check_tracker(lambda run, last: 2, run)
    with pytest.raises(AssertionError, match="expected a function, got int"):
        testing.check_tracker(3)  # type: ignore[arg-type]

    class Told:
        def __call__(self, run: object, last: object) -> None: ...
        def epoch(self, record: object) -> None: ...

    with pytest.raises(AssertionError, match="a tracker's epoch must take 2 arguments"):
        testing.check_tracker(Told())
    testing.check_tracker("tensorboard")


# --- the documents ----------------------------------------------------------------------------------------


def test_the_document_shows_the_examples_as_they_are() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        shown = f"```python\n{path.read_text(encoding='utf-8')}```" in text
        assert shown, f"docs/plugins.md shows another {path.name}; copy it anew"
