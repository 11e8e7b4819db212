"""sal-fast evaluate: judge a trained model on a data set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sal_fast.cli import parsing
from sal_fast.cli.files import FilesWithMasks, Machine
from sal_fast.cli.output import say, tell
from sal_fast.cli.predict import Model
from sal_fast.data import load_table
from sal_fast.errors import InputError
from sal_fast.metrics.summary import MAPS, Figure, figures, subgroups
from sal_fast.report import evaluation
from sal_fast.trained.evaluate import Judged, Split, judge

MOST_ROWS = 40  # rows of a table that are shown; the files have all

NAMES = {
    "accuracy": "accuracy",
    "majority_class": "always the most frequent class",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC, mean of the classes",
    "ece": "calibration error (ECE)",
    "dice": "Dice",
    "iou": "IoU",
    "pointing": "pointing game",
    "energy": "energy on the mask",
    "energy_gain": "energy, corrected for the mask's size",
    "cc": "CC",
    "kl": "KL (less is better)",
    "nss": "NSS",
    "sim": "SIM",
    "auc_judd": "AUC-Judd",
    "deletion": "deletion AUC (less is better)",
    "insertion": "insertion AUC",
    "worst_subgroup_accuracy": "worst subgroup's accuracy",
    "worst_subgroup_balanced_accuracy": "worst subgroup's balanced accuracy",
    "worst_subgroup_dice": "worst subgroup's Dice",
    "worst_subgroup_iou": "worst subgroup's IoU",
    "worst_subgroup_pointing": "worst subgroup's pointing game",
}


@dataclass(frozen=True, kw_only=True)
class Options(FilesWithMasks, Machine):
    """Judge a trained model on a data set: as a classifier, and whether it looks where people look.

    Figures are shown, each with the number of images that it is of. OUT gets them as CSV and JSON, with a
    line for each class and each image, the confusion matrix and the reliability plot.
    """

    model: Model
    """The folder of a run, its folder model, or a .safetensors file that a run wrote."""
    data: str
    """A data set whose classes the model knows: what `sal-fast run` takes, or a prepared folder."""
    out: Path | None = None
    """The folder to write to; without it the figures are only shown."""
    split: Split = "auto"
    """The images to take: auto takes the run's test images if the data are the run's, else those that the
    data call test, else all."""
    changed_images: int = 100
    """The number of images, evenly spread, that are changed for insertion and deletion. Each takes 66 passes
    of the network; 0 leaves these figures out."""


def main(arguments: list[str]) -> int:
    options = parsing.one_line(Options, arguments, "sal-fast evaluate")
    if options.changed_images < 0:
        raise InputError(f"--changed-images {options.changed_images}: expected 0 or more")
    table = load_table(options.data, options.root, options.its_rule, options.its_format)
    judged = judge(
        options.model,
        table,
        split=options.split,
        changed=options.changed_images,
        device=options.device,
        decoder=options.decoder,
    )
    say("\n".join(_shown(judged)))
    for note in judged.notes:
        tell(f"sal-fast: note: {note}")
    if options.out is not None:
        evaluation.write(judged, options.out)
        say(f"figures.csv, figures.json, images.csv, confusion.png, reliability.png and more: {options.out}")
    return 0


def _shown(judged: Judged) -> Iterator[str]:
    """The lines of the tables on the screen. They begin with a space, so that nothing breaks them."""
    tested = judged.tested
    yield f"{len(judged.ids)} images of {judged.data}, {len(tested.classes)} classes"
    yield ""
    found = figures(tested)
    yield from _table(
        ["figure", "value", "95 % interval", "by chance", "images"], [_figure(one) for one in found]
    )
    yield ""
    columns = ["class", "images", "recall", "precision", "f1", "auroc", "dice", "iou", "pointing"]
    yield from _table(columns, _rows(evaluation.classes_table(tested).to_dicts(), columns))
    if tested.subgroups:
        yield ""
        columns = ["subgroup", "images", "accuracy", "low", "high", "balanced_accuracy", "maps", *MAPS]
        yield from _table(columns, _rows(subgroups(tested), columns))


def _figure(one: Figure) -> list[str]:
    interval = "" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"
    chance = "" if one.by_chance is None else _text(one.by_chance)
    return [NAMES[one.name], _text(one.value), interval, chance, str(one.images)]


def _rows(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[list[str]]:
    return [[_text(row[name]) for name in columns] for row in rows]


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table; the first column is text, the others are numbers."""
    cells = [list(columns), *map(list, rows[:MOST_ROWS])]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    for first, *others in cells:
        numbers = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield f"  {first.ljust(widths[0])}  {'  '.join(numbers)}".rstrip()
    if len(rows) > MOST_ROWS:
        yield f"  ... and {len(rows) - MOST_ROWS} more in the files of --out"
