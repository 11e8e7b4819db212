"""The files of `sal-fast evaluate`: tables as CSV and JSON, and two figures.

figures.csv, figures.json    all figures; the second has the tables of classes and subgroups and the notes
classes.csv                  a line for each class
subgroups.csv                a line for each subgroup, if there are subgroups
confusion.csv, .png          images by their class and the predicted one
reliability.csv, .png        how often predictions of each confidence were right
images.csv                   a line for each image
"""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from sal_fast._util.files import write_bytes
from sal_fast.metrics import Reliability, auroc, ece, reliability
from sal_fast.metrics.summary import Tested, figures, per_class, subgroups
from sal_fast.report.figures import drawing, legend, new_figure, picture, short
from sal_fast.report.looks import BLUE, GREY
from sal_fast.trained.evaluate import Judged

MOST_NUMBERS = 16  # classes up to which the confusion matrix shows its numbers
MOST_NAMES = 60  # classes up to which it shows their names


def write(judged: Judged, out: Path) -> None:
    """Write all files into a folder, each of them whole; figures.json is the last."""
    tested = judged.tested
    found = reliability(tested.probabilities, tested.labels)
    tables = {
        "figures": pl.DataFrame([asdict(one) for one in figures(tested)], infer_schema_length=None),
        "classes": classes_table(tested),
        "confusion": _confusion_table(tested),
        "reliability": _reliability_table(found),
        "images": images_table(judged),
    }
    if tested.subgroups:
        tables["subgroups"] = pl.DataFrame(subgroups(tested), infer_schema_length=None)
    whole: dict[str, Any] = {
        "model": str(judged.model),
        "data": judged.data,
        "notes": judged.notes,
        **{name: tables[name].to_dicts() for name in ("figures", "classes", "subgroups") if name in tables},
        "confusion": tested.confusion.tolist(),
    }
    with drawing():
        drawn = [
            picture(confusion_figure(tested), "confusion", "Test images by class and predicted class."),
            picture(reliability_figure(found), "reliability", "Accuracy of predictions by confidence."),
        ]
    for name in ("figures.json", *(["subgroups.csv"] if "subgroups" not in tables else [])):
        (out / name).unlink(missing_ok=True)  # of another model
    for name, table in tables.items():
        write_bytes(out / f"{name}.csv", table.write_csv().encode())
    for one in drawn:
        write_bytes(out / f"{one.name}.png", one.png)
    write_bytes(out / "figures.json", (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode())


def classes_table(tested: Tested) -> pl.DataFrame:
    """The figures of each class, one line for each."""
    areas = auroc(tested.probabilities, tested.labels).tolist()
    return pl.DataFrame(
        {
            "class": list(tested.classes),
            **per_class(tested.confusion, tested.labels, tested.maps),
            "auroc": [None if math.isnan(area) else area for area in areas],
        },
        strict=False,
    )


def images_table(judged: Judged) -> pl.DataFrame:
    """A line for each image: the model's answer, the probability of it and of the class, and the figures."""
    tested, probabilities = judged.tested, judged.tested.probabilities
    names = list(tested.classes)
    answers = {"label": tested.labels, "predicted": tested.predicted}
    shares = {
        "probability": probabilities.gather(1, tested.predicted[:, None])[:, 0],
        "probability_of_label": probabilities.gather(1, tested.labels[:, None])[:, 0],
        **tested.maps._asdict(),
        **tested.faithfulness,
    }
    return pl.DataFrame(
        {
            "id": judged.ids,
            **({"subgroup": list(tested.subgroups)} if tested.subgroups else {}),
            **{name: [names[number] for number in values.tolist()] for name, values in answers.items()},
            "right": (tested.labels == tested.predicted).tolist(),
            **{name: _column(values) for name, values in shares.items()},
        }
    )


def _column(values: Tensor) -> pl.Series:
    return pl.Series(values.double().cpu().numpy()).fill_nan(None)


def _confusion_table(tested: Tested) -> pl.DataFrame:
    """A line for each pair of a class and a predicted class that occurs."""
    counts = tested.confusion
    pairs = counts.nonzero().tolist()
    names = list(tested.classes)
    return pl.DataFrame(
        {
            "label": [names[i] for i, _ in pairs],
            "predicted": [names[j] for _, j in pairs],
            "images": [int(counts[i, j]) for i, j in pairs],
        }
    )


def _reliability_table(found: Reliability) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "above": _column(found.edges[:-1]),
            "up_to": _column(found.edges[1:]),
            "images": found.images.tolist(),
            "confidence": _column(found.confidence),
            "accuracy": _column(found.accuracy),
        }
    )


def confusion_figure(tested: Tested) -> Figure:
    """The confusion matrix: a row for each class, coloured by the shares of its images."""
    counts: NDArray[np.int64] = tested.confusion.numpy()
    classes = len(counts)
    side = min(max(4.0, 0.45 * classes + 1.8), 12.0)
    figure, axes = new_figure("Confusion matrix", "predicted class", "class", (side, side))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="none")
    figure.colorbar(shown, ax=axes, label="share of the class's images", shrink=0.8)
    names = [short(name, 20) for name in tested.classes] if classes <= MOST_NAMES else []
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    if classes <= MOST_NUMBERS:
        for (i, j), count in np.ndenumerate(counts):
            axes.text(j, i, str(count), ha="center", va="center", color="w" if shares[i, j] > 0.5 else "k")
    return figure


def reliability_figure(found: Reliability) -> Figure:
    """The share of right predictions in each bin of confidence; a calibrated model's bars reach the line."""
    title = f"Reliability, ECE {ece(found):.3f}"
    figure, axes = new_figure(title, "confidence", "share of right predictions", (4.6, 4.6), whole=False)
    left, width = found.edges[:-1].numpy(), np.diff(found.edges.numpy())
    heights = found.accuracy.nan_to_num().numpy()
    axes.bar(left, heights, width, align="edge", color=BLUE, edgecolor="white", label="accuracy")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="calibrated")
    for x, height, count in zip(left + width / 2, heights, found.images.tolist(), strict=True):
        if count:
            axes.text(x, height + 0.01, str(count), ha="center", va="bottom", fontsize=7)
    axes.set(xlim=(0, 1), ylim=(0, 1.08), aspect="equal")
    legend(figure)
    return figure
