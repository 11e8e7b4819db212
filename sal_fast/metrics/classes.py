"""Figures of a classifier, computed in float64 on the CPU.

Most of them follow from the confusion matrix, which counts the images of each class by the class that was
predicted. Balanced accuracy, macro F1 and AUROC agree with scikit-learn, and ECE agrees with torchmetrics. We
do not take torchmetrics' because its macro recall counts a class without images as 0 where it is predicted,
and because its import takes longer than a small run's test.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def confusion_matrix(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Count the images of class i that were predicted as class j: int64 [K, K], K = classes.

    labels, predicted: int64 [E], 0 to K - 1. Raises ValueError for other numbers or shapes.
    """
    if labels.shape != predicted.shape or labels.ndim != 1:
        raise ValueError(
            f"confusion_matrix: expected labels [E] and predicted [E], "
            f"got {list(labels.shape)} and {list(predicted.shape)}"
        )
    labels, predicted = labels.cpu().long(), predicted.cpu().long()
    for name, values in (("labels", labels), ("predicted", predicted)):
        if len(values) and not (int(values.min()) >= 0 and int(values.max()) < classes):
            raise ValueError(
                f"confusion_matrix: {name} must be 0 to {classes - 1}, "
                f"got {int(values.min())} to {int(values.max())}"
            )
    return (labels * classes + predicted).bincount(minlength=classes**2).view(classes, classes)


def accuracy(confusion: Tensor) -> float:
    """The share of images whose class was predicted, `sum_i C_ii / sum_ij C_ij`; NaN without images."""
    return float(confusion.diagonal().sum().double() / confusion.sum())


def recall(confusion: Tensor) -> Tensor:
    """The share of each class's images that were found, `C_ii / sum_j C_ij`: float64 [K].

    It is NaN for a class without images.
    """
    return confusion.diagonal().double() / confusion.sum(1)


def precision(confusion: Tensor) -> Tensor:
    """The share of each class's predictions that were right, `C_jj / sum_i C_ij`: float64 [K].

    It is NaN for a class that was never predicted.
    """
    return confusion.diagonal().double() / confusion.sum(0)


def f1(confusion: Tensor) -> Tensor:
    """The harmonic mean of each class's precision and recall: float64 [K].

    It is `2 C_ii / (sum_j C_ij + sum_j C_ji)`, so it is 0 for a class with images that was never predicted,
    and NaN for a class without images that was never predicted.
    """
    return 2 * confusion.diagonal().double() / (confusion.sum(0) + confusion.sum(1))


def balanced_accuracy(confusion: Tensor) -> float:
    """The mean recall of the classes that have images; NaN without images.

    A model that predicts one class gets 1 / K, however frequent that class is.
    Source: Brodersen et al. 2010, "The balanced accuracy and its posterior distribution".
    """
    return float(recall(confusion).nanmean())


def macro_f1(confusion: Tensor) -> float:
    """The mean F1 of the classes that have images or were predicted; NaN without images."""
    return float(f1(confusion).nanmean())


def chance(confusion: Tensor) -> float:
    """The accuracy of a guess that takes every class equally often, 1 / K."""
    return 1 / len(confusion)


def majority_share(confusion: Tensor) -> tuple[int, float]:
    """The most frequent class, the lowest of several, and its share of the images.

    The share is the accuracy of a model that always predicts that class. It is NaN without images.
    """
    images = confusion.sum(1)
    most = int(images.argmax())
    return most, float(images[most].double() / images.sum())


def wilson_interval(right: int, images: int, confidence: float = 0.95) -> tuple[float, float]:
    """An interval for the true share, where `right` of some images have a property.

    With `p = right / images`, n images and the normal quantile z the ends are
    `(p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)`. Without images it is (0, 1).
    The images have to be independent of each other. Raises ValueError if `right` is not 0 to `images`.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    from scipy.stats import binomtest  # this import takes half a second, and most tests need no interval

    if not images and not right:
        return 0.0, 1.0
    interval = binomtest(right, images).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def auroc(scores: Tensor, labels: Tensor) -> Tensor:
    """The area under the ROC curve of each class against all others: float64 [K].

    It is the probability that an image of the class has a higher score than another image, where equal
    scores count one half. 0.5 is chance. A class that no image or every image has gives NaN.

    scores: floating [E, K], a column for each class, such as probabilities. labels: int64 [E]. Raises
    ValueError for other shapes and for scores with NaN.

    Source: Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve".
    """
    from scipy.stats import rankdata

    _check_scores("auroc", scores, labels)
    values, own = scores.double().cpu().numpy(), labels.cpu().numpy()
    if np.isnan(values).any():
        raise ValueError("auroc: scores contain NaN; expected numbers")
    areas = torch.full((values.shape[1],), torch.nan, dtype=torch.float64)
    for label in range(len(areas)):
        positive = own == label
        count = int(positive.sum())
        if 0 < count < len(own):
            ranks = rankdata(values[:, label])[positive].sum()
            areas[label] = (ranks - count * (count + 1) / 2) / (count * (len(own) - count))
    return areas


@dataclass(frozen=True)
class Reliability:
    """The share of right predictions at each confidence, in M bins of equal width.

    edges: float64 [M + 1], 0 to 1. images: int64 [M]. confidence: float64 [M], the mean probability of the
    predicted class. accuracy: float64 [M], the share of right predictions. A bin without images has NaN.
    """

    edges: Tensor
    images: Tensor
    confidence: Tensor
    accuracy: Tensor


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Reliability:
    """Sort predictions by their confidence, and compare it with how often they were right.

    The confidence is the largest probability, and the prediction is its class, the lowest of several. Bin m
    of M holds the confidences in `((m - 1) / M, m / M]`.

    probabilities: floating [E, K], 0 to 1. labels: int64 [E]. Raises ValueError for other values or shapes.

    Source: Guo et al. 2017, "On calibration of modern neural networks".
    """
    _check_scores("reliability", probabilities, labels)
    values = probabilities.double().cpu()
    if bins < 1 or not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(f"reliability: expected probabilities from 0 to 1 and at least one bin, got {bins}")
    confidence, predicted = values.max(1)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    bin_of = torch.searchsorted(edges[1:-1], confidence)
    images = bin_of.bincount(minlength=bins)
    right = (predicted == labels.cpu()).double()
    sums = (bin_of.bincount(weights=column, minlength=bins) for column in (confidence, right))
    return Reliability(edges, images, *(total / images for total in sums))


def ece(found: Reliability) -> float:
    """The expected calibration error, `sum_m n_m / E |accuracy_m - confidence_m|`: 0 to 1, less is better.

    It is NaN without images.
    """
    gaps = (found.accuracy - found.confidence).abs().nan_to_num()
    return float((found.images * gaps).sum() / found.images.sum())


def _check_scores(name: str, scores: Tensor, labels: Tensor) -> None:
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not scores.shape[1]:
        raise ValueError(
            f"{name}: expected scores [E, K] and labels [E], "
            f"got {list(scores.shape)} and {list(labels.shape)}"
        )
