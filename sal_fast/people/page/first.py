"""The first questions about images without any class: some of them are needed to test the run on.

People give the class of a part of the images. These are split into val and test, stratified by class, and
people draw maps of those in test. The run is then made from a manifest that says so; all other images are its
pool.

    first/classes/    the question about classes, and its answers
    first/maps/       the question about maps of the test images, and its answers
    first/images.json the images in the order in which people are asked about them, and where they come from
    first/data.csv    the manifest; masks/ beside it has the maps, and own/ those that had to be written anew
    first/ready.json  written at the end: the manifest's name, or null if the data has classes of its own
    classes.json      the classes that people typed

`main` is a program of its own, because reading data takes torch. It is started once for each step.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from sal_fast._util.files import read_json, write_bytes, write_json
from sal_fast._util.locks import locked
from sal_fast.errors import InputError
from sal_fast.experiment.answers import people
from sal_fast.experiment.config import Config
from sal_fast.people.answers import Answers, png_mask
from sal_fast.people.question import Question

if TYPE_CHECKING:
    from sal_fast.data import Table

# of the images, the share that gets a class first, and the least and the most of them
SHARE, LEAST, MOST = 0.3, 20, 200
WANTED = 2  # images of each class that have to be found, one for val and one for test
CLASSES, MAPS = -1, -2  # numbers of the two questions, which are no queries of a run
POOL = "pool"  # the folder of images without a class
LOOKED = 64  # pixels a side at which images are compared
LONGEST = 200  # characters of a class

# options that say how `--data` is read; the manifest that is made here is read without them
READING = ("data", "root", "format", "columns", "foreground", "ignore", "foreground_colour")

log = logging.getLogger("sal_fast.first")


def state(folder: Path) -> Literal["unknown", "asking", "ready"]:
    """The state of the first questions; `unknown` before the data was read."""
    place = folder / "first"
    if (place / "ready.json").exists():
        return "ready"
    return "asking" if (place / "classes" / people.POSED).exists() else "unknown"


def data(folder: Path) -> Path | None:
    """The manifest that the run is made from; None if the data says itself which classes its images have."""
    name = read_json(folder / "first" / "ready.json")["data"]
    return None if name is None else (folder / "first" / str(name)).absolute()


def asked(folder: Path) -> int:
    """The number of the first question that was asked last."""
    return MAPS if (folder / "first" / "maps" / people.POSED).exists() else CLASSES


def source(folder: Path) -> str | None:
    """The data that the first questions are about; None if there were none, or if that was not recorded."""
    file = folder / "first" / "images.json"
    return read_json(file).get("data") if file.exists() else None


def question(folder: Path, run: str, classes: Sequence[str]) -> tuple[Question, Path]:
    """The question that is asked first or next, and its folder."""
    for name in ("maps", "classes"):
        place = folder / "first" / name
        asked = people.posed(place, run)
        if asked is not None:
            return replace(asked, classes=list(classes)), place
    raise InputError(f"{folder}: an image of the first question is gone; restore it")


@contextmanager
def opened(folder: Path) -> Iterator[Answers]:
    """The answers to a first question, so that they can be changed."""
    with locked(folder / ".lock"):
        yield Answers(folder)


def classes(folder: Path, given: Sequence[str]) -> list[str]:
    """The classes to choose from: those of `--classes`, and those that people typed.

    Names that differ in case alone are one class, which is spelt as it was given first.
    """
    file = folder / "classes.json"
    typed = read_json(file)["classes"] if file.exists() else []
    there: dict[str, str] = {}
    for name in (*given, *typed):
        there.setdefault(name.casefold(), name)
    return list(there.values())


def add_classes(folder: Path, given: Sequence[str], names: Sequence[object]) -> list[str]:
    """Add classes to those that people typed, and return all.

    Raises InputError for a name that cannot be a class.
    """
    there = classes(folder, given)
    known = {name.casefold() for name in there}
    for name in names:
        clean = " ".join(str(name).split())
        if not clean or len(clean) > LONGEST:
            raise InputError(f"the name of a class has 1 to {LONGEST} characters")
        if clean.casefold() not in known:
            there.append(clean)
            known.add(clean.casefold())
    write_json(folder / "classes.json", {"classes": there})
    return there


def wanted(images: int) -> int:
    """The number of images that get a class first: 30 %, at least 20, at most 200 or half of all."""
    return min(max(LEAST, round(SHARE * images)), MOST, images // 2)


def main(arguments: list[str]) -> int:
    """Do the next step, and return an exit status: 0 if it is done, 2 if something is wrong.

    The arguments are the folder, the run's options as JSON, and the classes of `--classes` as JSON.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    folder, options, named = Path(arguments[0]), json.loads(arguments[1]), json.loads(arguments[2])
    try:
        with locked(folder / ".first.lock"):  # one that a killed page has left behind may still work
            _step(folder / "first", Config.of(options), classes(folder, named), named)
    except InputError as error:
        log.error("sal-fast: error: %s", error)
        return 2
    return 0


def _step(place: Path, config: Config, names: Sequence[str], named: Sequence[str]) -> None:
    """Do the next step. Nothing is done while people have not answered what was asked.

    names: all classes that people can choose. named: those of `--classes`, each of which has to be found;
    without `--classes` each of `names` has to be.
    """
    from sal_fast import seeds
    from sal_fast.data.table import UNLABELLED

    table = _table(config)
    image = dict(zip(table.ids, table.images, strict=True))
    if any(label != UNLABELLED for label in table.labels):
        write_json(place / "ready.json", {"data": None})
        return
    if not (place / "classes" / people.POSED).exists():
        order = [table.ids[row] for row in _own(table)]
        order = [order[at] for at in seeds.stream(config.seed, "first").permutation(len(order))]
        if len(order) < 2 * LEAST:
            raise InputError(f"{table.name} has {len(order)} images; expected {2 * LEAST} at least")
        _check(config, table, len(order) - wanted(len(order)))
        write_json(place / "images.json", {"order": order, "data": config.data})
        _pose(place / "classes", CLASSES, order[: wanted(len(order))], image, maps=False)
        return
    if any(_open(place / name) for name in ("classes", "maps")):
        return
    order = list(read_json(place / "images.json")["order"])
    gone = [name for name in order if name not in image]
    if gone:
        raise InputError(f"{table.name}: image {gone[0]!r} is gone; restore it, and start the page again")
    spelt = {name.casefold(): name for name in names}
    given = {
        name: None if one.label is None else spelt.get(one.label.casefold(), one.label)
        for name, one in Answers(place / "classes").verdicts().items()
    }
    found: dict[str, list[str]] = {}
    for name in order:
        label = given.get(name)
        if label is not None:
            found.setdefault(label, []).append(name)
    known = dict.fromkeys([*(spelt[name.casefold()] for name in named or names), *found])
    rare = [label for label in known if len(found.get(label, [])) < WANTED]
    if rare or len(found) < 2:
        if len(given) >= len(order) // 2:
            order = _with_new(place, config, table, order, len(given))
        lacking = f"{rare[0]!r} was found fewer than {WANTED} times" if rare else "one class alone was found"
        _ask_more(place / "classes", order, image, lacking, len(given))
        return
    rng = seeds.stream(config.seed, "split")
    split: dict[str, str] = {}
    for label in sorted(found):
        own = [found[label][at] for at in rng.permutation(len(found[label]))]
        split |= dict.fromkeys(own[::2], "val") | dict.fromkeys(own[1::2], "test")
    # masks that the data have already; nobody has to draw these
    there = {name for name, mask in zip(table.ids, table.masks, strict=True) if mask is not None}
    test = [name for name in order if split.get(name) == "test"]
    bare = [name for name in test if name not in there]
    if config.its_regime.uses_maps and bare and not (place / "maps" / people.POSED).exists():
        labels = {name: str(given[name]) for name in bare}
        _pose(place / "maps", MAPS, bare, image, maps=True, labels=labels)
        return
    said = {name: one.label for name, one in Answers(place / "maps").verdicts().items()}
    lost = sorted(set(found) - {said.get(name, given[name]) for name in test})
    if lost:
        raise InputError(
            f"no test image of {lost[0]!r} is left: each was skipped, or was given another class; change one "
            f"of these answers (My answers)"
        )
    _write_data(place, order, table, given, split)
    write_json(place / "ready.json", {"data": "data.csv"})
    counts = [sum(one == which for one in split.values()) for which in ("val", "test")]
    log.info("%d images are for val and %d for test, stratified by class", *counts)


def _open(place: Path) -> list[str]:
    """The images of a first question that nobody has answered yet."""
    if not (place / people.POSED).exists():
        return []
    return Answers(place).open(read_json(place / people.POSED)["ids"])


def _with_new(place: Path, config: Config, table: Table, order: Sequence[str], asked: int) -> list[str]:
    """The order with images that were added since it was made; people are asked about them next."""
    new = [table.ids[row] for row in _own(table, order) if table.ids[row] not in order]
    if not new:
        return list(order)
    found = [*order[:asked], *new, *order[asked:]]
    write_json(place / "images.json", {"order": found, "data": config.data})
    return found


def _own(table: Table, known: Collection[str] = ()) -> list[int]:
    """The rows of the table without those that look like an earlier one, or like one of the `known` ids.

    A copy of a test image in the pool would make the test worth less. All files are read, so one that cannot
    be used is named before people begin.
    """
    import torch

    from sal_fast.data import StoreOptions, decode, duplicates, open_store, plan_store

    with closing(decode.choose("auto", torch.device("cpu"))) as decoder:
        samples = open_store(table, plan_store(table, StoreOptions(LOOKED, LOOKED, decoder, "resident")))
    assert samples.traits is not None
    copies: set[int] = set()
    for one in duplicates.find(samples.traits):
        kept = min(one.rows, key=lambda row: table.ids[row] not in known)  # the earliest, if none is known
        copies |= {row for row in one.rows if row != kept and table.ids[row] not in known}
    if copies:
        first = table.ids[min(copies)]
        log.info("%d images look like another one and are left out, such as %s", len(copies), first)
    return [row for row in range(len(table)) if row not in copies]


def _check(config: Config, table: Table, pool: int) -> None:
    """Refuse options that cannot work before people spend their time."""
    from sal_fast.distributed import ALONE
    from sal_fast.experiment import checks, settling

    settled = settling.settle(config, pool, {}, ALONE)
    checks.check_networks(settled)
    checks.check_features(settled, replace(table, classes=["one", "other"]), settled.plan(pool))


def _table(config: Config) -> Table:
    """The images: a data set in any format, or the pictures that lie in a folder without a table.

    Raises InputError if pictures lie beside folders that stand for classes, because these would be left out.
    """
    from sal_fast.data import load_table
    from sal_fast.data.readers.base import is_picture, visible
    from sal_fast.trained import named

    path = Path(config.data)
    there = visible(path) if path.is_dir() else []
    loose = [one for one in there if is_picture(one)]
    folders = [one.name for one in there if one.is_dir()]
    if folders == [POOL] and not loose:  # no image has a class
        return named.table([path], config.white)
    try:
        found = load_table(config.data, config.root, config.its_rule, config.its_format)
    except InputError:
        plain = bool(loose) and not any(one.suffix in named.TABLES for one in there)
        if not plain:
            raise
        return named.table([path], config.white)
    if loose and not {*found.images} & {*loose} and {*found.classes} <= {*folders}:
        raise InputError(
            f"{path}: its folders {', '.join(found.classes)} are read as classes, and {len(loose)} pictures "
            f"beside them, such as {loose[0].name!r}, would be left out; put each into the folder of its "
            f"class, or all pictures into one folder without others if no class is known"
        )
    return found


def _ask_more(place: Path, order: Sequence[str], image: Mapping[str, Path], lacking: str, asked: int) -> None:
    """Ask about more images, because a class was found too seldom. `lacking` says which.

    Raises InputError if half of all images were asked already.
    """
    most = len(order) // 2
    if asked >= most:
        raise InputError(
            f"{lacking} among {asked} images; add images and start the page again, or leave the rare class "
            f"out by --classes, and withdraw the answers that name it"
        )
    more = order[: min(most, asked + max(LEAST // 2, asked // 4))]
    log.info("%s, so more images are shown", lacking)
    _pose(place, CLASSES, more, image, maps=False)


def _pose(
    place: Path,
    number: int,
    ids: Sequence[str],
    image: Mapping[str, Path],
    *,
    maps: bool,
    labels: Mapping[str, str] | None = None,
) -> None:
    images = [image[name] for name in ids]
    people.pose(place, Question("", number, list(ids), images, [], maps, labels=labels or {}))


def _write_data(
    place: Path,
    order: Sequence[str],
    table: Table,
    given: Mapping[str, str | None],
    split: Mapping[str, str],
) -> None:
    """Write the manifest: val and test with their classes and maps, and the pool without classes.

    Masks that the data have already stay, unless somebody has drawn another. Those that an option such as
    `--foreground` explains, or that are several files, are written anew, because the manifest is read without
    these options. Images that people skipped are left out. Where several people drew, a pixel belongs to the
    map if at least half of them marked it.
    """
    from sal_fast.data.convert import put_mask
    from sal_fast.data.meaning import Rule

    row_of = {name: row for row, name in enumerate(table.ids)}
    later = {name: one.label for name, one in Answers(place / "maps").verdicts().items()}
    masks = {name: one.masks for name, one in Answers(place / "maps").verdicts().items()}
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(("id", "image", "label", "mask", "split"))
    for name in sorted(order):
        if name in given and (given[name] is None or later.get(name, "") is None):
            continue
        row = row_of[name]
        its_own, mask = table.masks[row], ""
        if isinstance(its_own, tuple) or (its_own is not None and table.rule != Rule()):
            mask = put_mask(table, row, place, f"own/{name}") or ""
        elif its_own is not None:
            mask = str(its_own.absolute())
        if masks.get(name):
            mask = f"masks/{name}.png"
            mean = np.mean([png_mask(path) / 255 for path in masks[name]], axis=0)
            drawn = io.BytesIO()
            Image.fromarray(np.where(mean >= 0.5, np.uint8(255), np.uint8(0))).save(drawn, format="png")
            write_bytes(place / mask, drawn.getvalue())
        label = later.get(name) or given.get(name) or ""
        writer.writerow((name, table.images[row].absolute(), label, mask, split.get(name, "train")))
    write_bytes(place / "data.csv", out.getvalue().encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
