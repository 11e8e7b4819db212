"""Figures of classes against definitions in float64, scikit-learn and torchmetrics."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sklearn_metrics
from torch import Tensor
from torchmetrics.functional import classification

from sal_fast import metrics

CLASSES = 5
KINDS = ["random", "ties", "one class predicted", "a class without images", "one image", "perfect"]


def case(kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, predictions and probabilities of 300 images, or of one."""
    rng = np.random.default_rng(11)
    count = 1 if kind == "one image" else 300
    labels = rng.integers(0, CLASSES - (kind == "a class without images"), count)
    scores = rng.normal(size=(count, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    if kind == "ties":
        scores = scores.round()
    if kind == "one class predicted":
        scores[:, 2] += 100
    if kind == "perfect":
        scores = 200 * np.eye(CLASSES)[labels]
    probabilities = torch.from_numpy(scores).softmax(1)
    return torch.from_numpy(labels), probabilities.argmax(1), probabilities


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_from_the_confusion_matrix(kind: str) -> None:
    labels, predicted, _ = case(kind)
    confusion = metrics.confusion_matrix(labels, predicted, CLASSES)
    y, p = labels.numpy(), predicted.numpy()
    for i in range(CLASSES):
        for j in range(CLASSES):
            assert confusion[i, j] == ((y == i) & (p == j)).sum()
    assert confusion.equal(classification.multiclass_confusion_matrix(predicted, labels, CLASSES))
    assert metrics.accuracy(confusion) == pytest.approx((y == p).mean(), abs=1e-15)

    def share(of: np.ndarray, among: np.ndarray) -> float:
        return of[among].mean() if among.any() else np.nan

    want = {
        "recall": [share(p == k, y == k) for k in range(CLASSES)],
        "precision": [share(y == k, p == k) for k in range(CLASSES)],
        "f1": [
            2 * both.sum() / either if (either := (y == k).sum() + (p == k).sum()) else np.nan
            for k in range(CLASSES)
            for both in [(y == k) & (p == k)]
        ],
    }
    for name, values in want.items():
        assert getattr(metrics, name)(confusion).tolist() == pytest.approx(values, nan_ok=True, abs=1e-15)
    assert metrics.balanced_accuracy(confusion) == pytest.approx(np.nanmean(want["recall"]), abs=1e-15)
    assert metrics.macro_f1(confusion) == pytest.approx(np.nanmean(want["f1"]), abs=1e-15)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn tells of classes that are predicted and have no images
        assert metrics.balanced_accuracy(confusion) == pytest.approx(
            sklearn_metrics.balanced_accuracy_score(y, p), abs=1e-12
        )
        assert metrics.macro_f1(confusion) == pytest.approx(
            sklearn_metrics.f1_score(y, p, average="macro", zero_division=0), abs=1e-12
        )


def test_torchmetrics_counts_a_class_without_images_in_its_macro_recall() -> None:
    """This is why balanced accuracy is not taken from there."""
    labels, predicted = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 2, 1, 1])
    confusion = metrics.confusion_matrix(labels, predicted, 3)
    assert metrics.balanced_accuracy(confusion) == 0.75
    theirs = classification.multiclass_recall(predicted, labels, 3, average="macro")
    assert theirs.item() == pytest.approx(0.5)


def test_a_model_that_predicts_one_class() -> None:
    """Its accuracy is that class's share, whatever it knows."""
    labels = torch.tensor([0] * 80 + [1] * 15 + [2] * 5)
    confusion = metrics.confusion_matrix(labels, torch.zeros_like(labels), 3)
    assert metrics.accuracy(confusion) == 0.8
    assert metrics.majority_share(confusion) == (0, 0.8)
    assert metrics.balanced_accuracy(confusion) == pytest.approx(metrics.chance(confusion)) == 1 / 3
    assert metrics.macro_f1(confusion) == pytest.approx(2 * 80 / 180 / 3)


def test_no_image() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    confusion = metrics.confusion_matrix(none, none, 3)
    assert confusion.equal(torch.zeros(3, 3, dtype=torch.int64))
    for measure in (metrics.accuracy, metrics.balanced_accuracy, metrics.macro_f1):
        assert np.isnan(measure(confusion))
    assert np.isnan(metrics.majority_share(confusion)[1])
    assert metrics.wilson_interval(0, 0) == (0, 1)
    assert np.isnan(metrics.ece(metrics.reliability(torch.zeros(0, 3), none)))
    assert metrics.auroc(torch.zeros(0, 3), none).isnan().all()


@pytest.mark.parametrize("kind", KINDS)
def test_auroc(kind: str) -> None:
    """The areas are those of a count over all pairs."""
    labels, _, probabilities = case(kind)
    found = metrics.auroc(probabilities, labels)
    y, p = labels.numpy(), probabilities.numpy()
    for k in range(CLASSES):
        high, low = p[y == k, k][:, None], p[y != k, k][None]
        if not high.size or not low.size:
            assert bool(found[k].isnan())
            continue
        assert found[k].item() == pytest.approx((high > low).mean() + (high == low).mean() / 2, abs=1e-12)
        assert found[k].item() == pytest.approx(sklearn_metrics.roc_auc_score(y == k, p[:, k]), abs=1e-12)


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("kind", KINDS)
def test_reliability(kind: str, bins: int) -> None:
    labels, predicted, probabilities = case(kind)
    found = metrics.reliability(probabilities, labels, bins)
    confidence, right = probabilities.amax(1).numpy(), (labels == predicted).numpy()
    edges, total = np.linspace(0, 1, bins + 1), 0.0
    for m in range(bins):
        inside = (confidence > edges[m]) & (confidence <= edges[m + 1])
        assert found.images[m] == inside.sum()
        if inside.any():
            assert found.confidence[m].item() == pytest.approx(confidence[inside].mean(), abs=1e-12)
            assert found.accuracy[m].item() == pytest.approx(right[inside].mean(), abs=1e-12)
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
        else:
            assert bool(found.accuracy[m].isnan())
    assert metrics.ece(found) == pytest.approx(total, abs=1e-12)
    theirs = classification.multiclass_calibration_error(probabilities, labels, CLASSES, n_bins=bins)
    assert metrics.ece(found) == pytest.approx(theirs.item(), abs=1e-5)


def test_a_confidence_on_an_edge_belongs_below_it() -> None:
    found = metrics.reliability(torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([1, 0]), bins=4)
    assert found.images.tolist() == [0, 1, 0, 1]
    assert metrics.ece(found) == pytest.approx(0.25)  # half of them is off by one half


@pytest.mark.parametrize(("right", "images"), [(0, 10), (10, 10), (1, 1), (37, 90), (4000, 5000)])
def test_wilson(right: int, images: int) -> None:
    z, p, n = stats.norm.ppf(0.975), right / images, images
    centre, reach = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    want = [(centre - reach) / (1 + z**2 / n), (centre + reach) / (1 + z**2 / n)]
    assert metrics.wilson_interval(right, images) == pytest.approx(want, abs=1e-12)


def test_what_is_refused() -> None:
    labels = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="predicted must be 0 to 1, got 0 to 2"):
        metrics.confusion_matrix(labels, torch.tensor([0, 2]), 2)
    with pytest.raises(ValueError, match=r"expected labels \[E\] and predicted \[E\], got \[2\] and \[1\]"):
        metrics.confusion_matrix(labels, labels[:1], 2)
    with pytest.raises(ValueError, match=r"expected scores \[E, K\] and labels \[E\]"):
        metrics.auroc(torch.rand(3, 2), labels)
    with pytest.raises(ValueError, match="scores contain NaN"):
        metrics.auroc(torch.tensor([[torch.nan, 0], [0, 1]]), labels)
    with pytest.raises(ValueError, match="expected probabilities from 0 to 1"):
        metrics.reliability(torch.tensor([[2.0, -1], [0, 1]]), labels)


def test_doubts() -> None:
    assert metrics.doubts([50, 50], ["a", "b"], 90) == []
    assert metrics.doubts([50, 0], ["a"], 50) == []  # there was only one class to predict
    (few,) = metrics.doubts([20, 29], ["a", "b"], 10)
    assert few.startswith("only 49 images were tested, fewer than 50")
    (one,) = metrics.doubts([50, 50], ["b"])
    assert one.startswith("every test image was taken for 'b'")
    (maps,) = metrics.doubts([50, 50], ["a", "b"], 1)
    assert maps.startswith("only 1 image of the test set has a map")
    assert len(metrics.doubts([1, 1], ["a"], 1)) == 2
