"""The figures of a whole test set: overall, for each class and for each subgroup.

All functions take what `Tested` holds, and give plain numbers, with None where a figure cannot be had.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sal_fast.metrics import classes as judged
from sal_fast.metrics.maps import MapFigures

# The figures of maps that are told for each class and each subgroup.
MAPS = ("dice", "iou", "pointing")


@dataclass(frozen=True)
class Tested:
    """The answers of a model to E images of K classes.

    classes: the names of the classes. labels, predicted: int64 [E]. logits: float [E, K]. maps: the figures
    of its maps. faithfulness: `deletion` and `insertion`, float [E], where they were measured. subgroups: the
    subgroup of each image, "" for none; an empty list if there are no subgroups.
    """

    classes: Sequence[str]
    labels: Tensor
    predicted: Tensor
    logits: Tensor
    maps: MapFigures
    faithfulness: Mapping[str, Tensor] = field(default_factory=dict)
    subgroups: Sequence[str] = ()

    @property
    def confusion(self) -> Tensor:
        """int64 [K, K], see `confusion_matrix`."""
        return judged.confusion_matrix(self.labels, self.predicted, len(self.classes))

    @property
    def probabilities(self) -> Tensor:
        """float64 [E, K]."""
        return self.logits.double().softmax(1)


@dataclass(frozen=True)
class Figure:
    """One figure of a test set.

    low, high: a 95 % interval for accuracies (Wilson). by_chance: what a model without knowledge would get.
    images: how many images the figure is of.
    """

    name: str
    value: float | None
    images: int
    low: float | None = None
    high: float | None = None
    by_chance: float | None = None


def mean(values: Tensor) -> float | None:
    """The mean of the values that are not NaN; None if there is none."""
    values = values[~values.isnan()]
    return float(values.double().mean()) if len(values) else None


def figures(tested: Tested) -> list[Figure]:
    """All figures of a test set. Those of maps are there if any image has them."""
    confusion = tested.confusion
    count, chance = int(confusion.sum()), judged.chance(confusion)
    areas = judged.auroc(tested.probabilities, tested.labels)
    found = [
        _accuracy("accuracy", confusion, chance),
        Figure("majority_class", _number(judged.majority_share(confusion)[1]), count),
        Figure("balanced_accuracy", _number(judged.balanced_accuracy(confusion)), count, by_chance=chance),
        Figure("macro_f1", _number(judged.macro_f1(confusion)), count),
        Figure("auroc", mean(areas), count, by_chance=0.5),
        Figure("ece", _number(judged.ece(judged.reliability(tested.probabilities, tested.labels))), count),
    ]
    floor = mean(tested.maps.floor)
    by_chance = {
        **dict.fromkeys(("dice", "pointing", "energy"), floor),
        **dict.fromkeys(("energy_gain", "cc", "nss"), 0.0),
        "auc_judd": 0.5,
    }
    measured = {**tested.maps._asdict(), **tested.faithfulness}
    for name, values in measured.items():
        images = int((~values.isnan()).sum())
        if images and name != "floor":
            found.append(Figure(name, mean(values), images, by_chance=by_chance.get(name)))
    if tested.subgroups:
        found += _worst(subgroups(tested))
    return found


def _accuracy(name: str, confusion: Tensor, chance: float | None) -> Figure:
    right, count = int(confusion.diagonal().sum()), int(confusion.sum())
    low, high = judged.wilson_interval(right, count)
    return Figure(name, _number(judged.accuracy(confusion)), count, low, high, chance)


def per_class(confusion: Tensor, labels: Tensor, maps: MapFigures) -> dict[str, list[Any]]:
    """The figures of each class, as lists in the order of the classes.

    `images` and `predicted` count; `recall`, `precision` and `f1` follow from the confusion matrix, and
    `dice`, `iou` and `pointing` are means over the images of the class that have a mask.
    """
    rates = {name: getattr(judged, name)(confusion).tolist() for name in ("recall", "precision", "f1")}
    return {
        "images": confusion.sum(1).tolist(),
        "predicted": confusion.sum(0).tolist(),
        **{name: [_number(value) for value in values] for name, values in rates.items()},
        **{
            name: [mean(getattr(maps, name)[labels == label]) for label in range(len(confusion))]
            for name in MAPS
        },
    }


def subgroups(tested: Tested) -> list[dict[str, Any]]:
    """The figures of each subgroup, one dictionary for each, in the order of their names.

    `images` counts its images, and `maps` those that the figures of maps are means of.
    """
    rows = []
    for name in sorted(set(tested.subgroups) - {""}):
        inside = torch.tensor([one == name for one in tested.subgroups], device=tested.labels.device)
        confusion = judged.confusion_matrix(
            tested.labels[inside], tested.predicted[inside], len(tested.classes)
        )
        whole = _accuracy("accuracy", confusion, None)
        row = {
            "subgroup": name,
            "images": whole.images,
            "maps": int((~tested.maps.dice[inside].isnan()).sum()),
            "accuracy": whole.value,
            "low": whole.low,
            "high": whole.high,
            "balanced_accuracy": _number(judged.balanced_accuracy(confusion)),
            **{one: mean(getattr(tested.maps, one)[inside]) for one in MAPS},
        }
        rows.append(row)
    return rows


def _worst(rows: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    """The worst subgroup's accuracy, balanced accuracy and figures of maps; each may be another subgroup's.

    Source: Sagawa et al. 2020, "Distributionally robust neural networks for group shifts".
    """
    for name in ("accuracy", "balanced_accuracy", *MAPS):
        known = [row for row in rows if row[name] is not None]
        if known:
            worst = min(known, key=lambda row: float(row[name]))
            low, high = (worst["low"], worst["high"]) if name == "accuracy" else (None, None)
            images = worst["maps" if name in MAPS else "images"]
            yield Figure(f"worst_subgroup_{name}", worst[name], images, low, high)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
