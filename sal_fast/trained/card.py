"""The model card of RUN/model: what the model is, what it was made of, and how good it is.

It has the form of the Hugging Face hub, a README.md that begins with YAML, so that a folder can be uploaded
there as it is.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sal_fast.metrics import wilson_interval
from sal_fast.metrics.doubts import FEW

FILE = "README.md"
NORMAL = 1.96  # standard errors on both sides of a mean within which 95 % of a normal distribution lie
# Other figures of a round that are shown if its line has them: the names there, and those in the card.
MORE = {
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "iou": "IoU",
    "pointing": "Pointing game",
    "cc": "CC with graded maps",
    "kl": "KL with graded maps",
    "val_accuracy": "Validation accuracy",
}
OVER = {
    "val_accuracy": "validation images",
    **dict.fromkeys(("iou", "pointing"), "the test images with a mask"),
    **dict.fromkeys(("cc", "kl"), "the test images with a graded map"),
}


def text(about: Mapping[str, Any], line: Mapping[str, Any], summary: Mapping[str, Any] | None) -> str:
    """The card of a model.

    Args:
        about: what its weights file says (`metadata`).
        line: the round's line of rounds.jsonl.
        summary: the content of summary.json; None if the run is not finished.
    """
    environment = Environment(
        loader=PackageLoader("sal_fast.trained", "."),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters["quoted"] = lambda value: json.dumps(value, ensure_ascii=False)
    tests = about["data"]["test"]
    return environment.get_template("card.md").render(
        about=about,
        figures=list(_figures(line, tests)),
        measured={name: line[name] for name in ("accuracy", "dice", *MORE) if line.get(name) is not None},
        few=tests < FEW,
        summary=summary,
    )


def _figures(line: Mapping[str, Any], tests: int) -> Iterator[tuple[str, str, str, str]]:
    """Rows of the table: the figure, its value, its interval, and what it is over."""
    low, high = wilson_interval(round(line["accuracy"] * tests), tests)
    yield "Accuracy", f"{line['accuracy']:.3f}", f"{low:.3f} to {high:.3f}", f"{tests} test images"
    if line.get("dice") is not None:
        count, spread = line.get("dice_images"), line.get("dice_std")
        over = "the test images with a mask" if count is None else f"{count} test images with a mask"
        interval = "–"
        if count is not None and spread is not None and count > 1:
            half = NORMAL * spread / count**0.5
            interval = f"{max(0.0, line['dice'] - half):.3f} to {min(1.0, line['dice'] + half):.3f}"
        yield "Dice", f"{line['dice']:.3f}", interval, over
        yield "Dice of a random map", f"{line['dice_floor']:.3f}", "–", over
    for name, said in MORE.items():
        if line.get(name) is not None:
            yield said, f"{line[name]:.3f}", "–", OVER.get(name, "test images")
