"""Judge a trained model on a data set."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sal_fast._util import progress
from sal_fast._util.devices import torch_device
from sal_fast._util.words import DecoderName
from sal_fast.data import StoreOptions, Table, decode, open_store, plan_store
from sal_fast.data.prepared import PreparedTable
from sal_fast.data.store import Store
from sal_fast.data.table import SPLITS, UNLABELLED
from sal_fast.errors import InputError
from sal_fast.experiment.record import RunFolder
from sal_fast.metrics import deletion, doubts, insertion
from sal_fast.metrics.summary import Tested
from sal_fast.models import Classifier
from sal_fast.train import Scores, evaluate
from sal_fast.trained import folder
from sal_fast.trained.model import classifier

Split = Literal["auto", "train", "val", "test", "all"]
BATCH = 32  # images whose pixels are changed together


@dataclass(frozen=True)
class Judged:
    """The answers of a model to a data set.

    model: its path. data: the name of the data set. ids: the names of the images, in the order of `tested`.
    notes: sentences on how the images were chosen, and why figures may mean little.
    """

    model: Path
    data: str
    ids: list[str]
    tested: Tested
    notes: list[str]


def judge(
    path: Path,
    table: Table,
    *,
    split: Split = "auto",
    changed: int = 0,
    device: str = "auto",
    decoder: DecoderName = "auto",
) -> Judged:
    """Test a model on the images of a table.

    Args:
        path: the folder of a run, its folder `model`, or a weights file that a run has written.
        table: the images, with their classes. Its classes are found among the model's by their names.
        split: the images to take; see `chosen`.
        changed: the number of images, evenly spread, for insertion and deletion.
        device, decoder: as the options of `sal-fast run`.

    Raises InputError for a model or images that cannot be used, and for a class that the model does not know.
    """
    about, state, source = folder.opened(path)
    model = classifier(about, state, str(source)).eval()
    names = table.ids
    table, notes = _known(_scaled_as(table, about["white"]), about["classes"])
    rows, more = chosen(table, split, _splits_of_run(path), names)
    table, rows = _cut(table, rows)
    place = torch_device(device)
    with closing(decode.choose(decoder, place)) as decoding:
        options = StoreOptions(about["image_size"], about["stored_size"], decoding, "auto")
        store = open_store(table, plan_store(table, options))
        index = torch.tensor(rows, dtype=torch.int64, device=place)
        scores = evaluate(model.to(place), store, index, about["probe"])
        tested = replace(scores.tested, faithfulness=_faithfulness(model, store, index, scores, changed))
    subgroups: list[str] = getattr(table, "subgroup", [])
    tested = replace(tested, subgroups=[subgroups[row] for row in rows] if subgroups else [])
    notes += [*more, *_doubts(tested)]
    return Judged(path, table.name, [table.ids[row] for row in rows], tested, notes)


def chosen(
    table: Table, split: Split, splits: dict[str, list[str]] | None, names: Sequence[str] | None = None
) -> tuple[list[int], list[str]]:
    """The rows of a table that a model is to be tested on, and notes for the user.

    Args:
        split: `auto` takes the test images of the run if the table has the run's images, else those that the
            table itself calls `test`, else all.
        splits: the ids of the run's images by split; None if the run is not known.
        names: the ids of all images of the data, if some of them are not in the table.

    Raises InputError if the split is empty.
    """
    split_of = {name: kind for kind, names in (splits or {}).items() for name in names}
    notes = []
    if splits is None:
        notes.append(
            "this model lies outside the folder of its run, so it cannot be told whether these images are "
            "among those that it was trained with"
        )
    if split_of and set(names or table.ids) == split_of.keys():
        table = table.with_split([split_of[name] for name in table.ids])
        notes.append("these images have the names of the run's own, so the splits are those of the run")
    has_splits = bool(table.split) and any(table.split)
    kind = ("test" if has_splits and table.rows("test") else "all") if split == "auto" else split
    rows = list(range(len(table))) if kind == "all" else table.rows(kind)
    if not rows:
        raise InputError(
            f"--split {split}: {table.name} has no images in it; expected one of auto, all"
            f"{''.join(f', {name}' for name in SPLITS if table.rows(name))}"
        )
    seen = sum(split_of.get(table.ids[row]) in ("train", "val") for row in rows)
    if seen:
        notes.append(
            f"{seen} of {len(rows)} images have the names of images that the run trained or validated with: "
            f"if they are these, the figures are better than on new images"
        )
    return rows, notes


def _splits_of_run(path: Path) -> dict[str, list[str]] | None:
    """The splits of the run that a model belongs to; None if the model lies outside its run."""
    path = path.resolve()
    for place in (path, *path.parents[:3]):
        if (place / "run.json").is_file():
            splits: dict[str, list[str]] = RunFolder(place).run()["splits"]
            return splits
    return None


def _scaled_as(table: Table, white: float | None) -> Table:
    """The table, with the number that is white in the model's images, unless the table says one itself."""
    if table.rule.white is not None or isinstance(table, PreparedTable):
        return table
    return replace(table, rule=replace(table.rule, white=white))


def _known(table: Table, classes: Sequence[str]) -> tuple[Table, list[str]]:
    """The table with the model's classes and without images that have no class, and a note if there are such.

    Raises InputError for a class that the model does not know, and if no image has a class.
    """
    unknown = sorted(set(table.classes) - set(classes))
    if unknown:
        raise InputError(
            f"{table.name} has the class {unknown[0]!r}, which the model does not know; it knows "
            f"{', '.join(classes)}: rename the class, or leave its images out"
        )
    number = [classes.index(name) for name in table.classes]
    labels = [label if label == UNLABELLED else number[label] for label in table.labels]
    table = replace(table, classes=list(classes), labels=labels)
    bare = labels.count(UNLABELLED)
    if bare == len(table):
        raise InputError(f"{table.name}: no image has a class, so there is nothing to judge a model by")
    if not bare:
        return table, []
    if isinstance(table, PreparedTable):
        raise InputError(f"{table.name}: {bare} images have no class; name the original images instead")
    kept = [row for row, label in enumerate(labels) if label != UNLABELLED]
    return subset(table, kept), [f"images without a class, which are left out: {bare}"]


def _cut(table: Table, rows: list[int]) -> tuple[Table, list[int]]:
    """The table without the rows that are not tested, so that their files are not read.

    A prepared table stays whole, because nothing of it is read before it is used.
    """
    if isinstance(table, PreparedTable) or len(rows) == len(table):
        return table, rows
    return subset(table, rows), list(range(len(rows)))


def subset(table: Table, rows: Sequence[int]) -> Table:
    """Some rows of a table."""
    columns: dict[str, Any] = {
        one.name: [values[row] for row in rows]
        for one in fields(table)
        if one.name != "classes" and isinstance(values := getattr(table, one.name), list) and values
    }
    return replace(table, **columns)


def _faithfulness(
    model: Classifier, store: Store, rows: Tensor, scores: Scores, count: int
) -> dict[str, Tensor]:
    """Insertion and deletion of some images, evenly spread over all; NaN for the others."""
    count = min(count, len(rows))
    if count < 1:
        return {}
    kinds = {"deletion": deletion, "insertion": insertion}
    found = {name: torch.full((len(rows),), torch.nan, device=rows.device) for name in kinds}
    parts = torch.linspace(0, len(rows) - 1, count, device=rows.device).round().long().split(BATCH)
    with progress.bar("insertion and deletion", count) as advance:
        for at, images in zip(parts, store.views([rows[at] for at in parts]), strict=True):
            for name, measure in kinds.items():
                found[name][at] = measure(
                    lambda seen: model(seen)[0], images, scores.cams[at], scores.tested.predicted[at]
                )
            advance(len(at))
    return found


def _doubts(tested: Tested) -> list[str]:
    """Say why the figures of a test may mean little."""
    confusion, maps = tested.confusion, tested.maps
    predicted = [name for name, count in zip(tested.classes, confusion.sum(0).tolist(), strict=True) if count]
    said = doubts(confusion.sum(1).tolist(), predicted, int((~maps.dice.isnan()).sum()))
    flat = int((maps.cc.isnan() & ~maps.auc_judd.isnan()).sum())
    if flat:
        said.append(
            f"{flat} maps have the same value everywhere: CC, KL, NSS and SIM leave them out, and are the "
            f"means of the others"
        )
    return said
