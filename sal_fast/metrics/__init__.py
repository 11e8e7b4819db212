"""Figures that say how good a model is: as a classifier, and as one that looks where people look.

`classes` judges predictions, `maps` judges saliency maps, `faithfulness` changes images to test maps, and
`doubts` says when a figure means little. They are functions of tensors, and read no files. `summary` gathers
the figures of a whole test set.
"""

from sal_fast.metrics.classes import (
    Reliability,
    accuracy,
    auroc,
    balanced_accuracy,
    chance,
    confusion_matrix,
    ece,
    f1,
    macro_f1,
    majority_share,
    precision,
    recall,
    reliability,
    wilson_interval,
)
from sal_fast.metrics.doubts import doubts
from sal_fast.metrics.faithfulness import blurred, deletion, insertion
from sal_fast.metrics.maps import (
    MapFigures,
    auc_judd,
    correlation,
    divergence,
    energy,
    energy_gain,
    iou,
    map_figures,
    nss,
    pointing_game,
    similarity,
)

__all__ = [
    "MapFigures",
    "Reliability",
    "accuracy",
    "auc_judd",
    "auroc",
    "balanced_accuracy",
    "blurred",
    "chance",
    "confusion_matrix",
    "correlation",
    "deletion",
    "divergence",
    "doubts",
    "ece",
    "energy",
    "energy_gain",
    "f1",
    "insertion",
    "iou",
    "macro_f1",
    "majority_share",
    "map_figures",
    "nss",
    "pointing_game",
    "precision",
    "recall",
    "reliability",
    "similarity",
    "wilson_interval",
]
