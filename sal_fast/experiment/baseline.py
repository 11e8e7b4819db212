"""The baseline of a run: what saliency and the criterion gained, on its own test images (`--baseline b1`).

When the rounds are finished, the regime b1 is trained a few times more, from the initial weights and on as
many images as a round of the run had. So only one thing differs in each comparison:

    saliency     the run's model, and b1 on the same images, which has no maps
    criterion    b1 on images that the run's criterion chose, and b1 on images drawn at random

These models are those that `--regime b1` would train on these images. A round in which all images of the pool
are labelled tells nothing about the criterion, so criteria are compared in the last round that has labelled
at most half of the pool, and if there is none, in the first one that follows a query.

What each model says of every test image is kept as soon as the model is trained. A run that is killed goes on
with the next model.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sal_fast import query, seeds
from sal_fast._util import stats
from sal_fast._util.files import read_json, write_bytes, write_json
from sal_fast.data.masks import Masks
from sal_fast.errors import InputError
from sal_fast.experiment.answers.labelled import Labelled
from sal_fast.experiment.budget import Plan
from sal_fast.experiment.config import Config
from sal_fast.experiment.networks import load_kept
from sal_fast.experiment.record import RunFolder
from sal_fast.experiment.regimes import REGIMES
from sal_fast.experiment.rounds import Steps, queried
from sal_fast.metrics.doubts import FEW
from sal_fast.models import Classifier
from sal_fast.train import Job, evaluate

GAINED = "gained.json"

log = logging.getLogger(__name__)

Images = Literal["chosen", "random"]


@dataclass(frozen=True)
class Model:
    """A model that is compared.

    regime: the run's own, or b1. images: chosen by the run's criterion, or drawn at random. round_index: of
    the round whose number of images it is trained on.
    """

    regime: str
    images: Images
    round_index: int

    @property
    def name(self) -> str:
        """The name of its file, without the suffix."""
        return f"{self.regime}-{self.images}-{self.round_index:03d}"


@dataclass(frozen=True)
class Comparison:
    """Two models that differ in one thing, and the measures by which they are compared."""

    what: Literal["saliency", "criterion"]
    having: Model
    lacking: Model
    measures: tuple[str, ...]


@dataclass(frozen=True)
class Gain:
    """The gain of saliency or of the criterion in one measure: the mean difference over test images.

    measure: accuracy or dice. labelled: the number of images that both models were trained on. having,
    lacking: the means of the model with it and of the one without it. mean, low, high: their difference and
    its 95 % interval. images: the number of test images that both have a value for.
    """

    what: str
    measure: str
    labelled: int
    having: float
    lacking: float
    mean: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class Gained:
    """The content of gained.json. notes: sentences about figures that mean little."""

    gains: list[Gain]
    notes: list[str]
    seconds: float


def place(folder: RunFolder) -> Path:
    """The folder of a run's baseline."""
    return folder.path / "baseline"


def read(folder: RunFolder) -> Gained | None:
    """Read what a run gained; None if it has no baseline, or its baseline is not finished."""
    path = place(folder) / GAINED
    if not path.exists():
        return None
    there = read_json(path)
    try:
        return Gained([Gain(**one) for one in there["gains"]], list(there["notes"]), float(there["seconds"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error!r}); remove it, and repeat the run's command") from None


def comparisons(config: Config, plan: Plan, pool: int) -> list[Comparison]:
    """List what can be compared for a run with a pool of `pool` training images.

    Without the labels of all images, images drawn at random cannot be trained on.
    """
    found = []
    last = plan.rounds - 1
    if config.its_regime.uses_maps:
        own, bare = Model(config.regime, "chosen", last), Model("b1", "chosen", last)
        found.append(Comparison("saliency", own, bare, ("dice", "accuracy")))
    at = round_of_criteria(plan, pool)
    if config.criterion != "random" and config.annotator == "data" and at is not None:
        chosen, drawn = Model("b1", "chosen", at), Model("b1", "random", at)
        found.append(Comparison("criterion", chosen, drawn, ("accuracy",)))
    return found


def round_of_criteria(plan: Plan, pool: int) -> int | None:
    """The round in which criteria are compared; None if no query leaves an image of the pool out.

    It is the last round after a query in which at most half of the pool is labelled, else the first one.
    """
    after_a_query = [index for index, count in enumerate(plan.labelled) if index and count < pool]
    half = [index for index in after_a_query if plan.labelled[index] <= pool / 2]
    return half[-1] if half else next(iter(after_a_query), None)


def trained_models(config: Config, plan: Plan, pool: int) -> list[Model]:
    """The models that have to be trained for the comparisons, each once. The run has its own already."""
    both = (model for one in comparisons(config, plan, pool) for model in (one.having, one.lacking))
    return [model for model in dict.fromkeys(both) if not _is_own(model, config, plan)]


def interval(differences: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The 95 % interval of a mean difference by the paired bootstrap over images: its low and its high end.

    The samples are of n images each, drawn from the n given ones with replacement (`stats.interval`).

    Args:
        differences: float64 [n], n >= 2, of two models on the same image.
        rng: what the samples are drawn with.
    """
    return stats.interval([differences], np.mean, rng)


def compare(steps: Steps, labelled: Labelled) -> None:
    """Train the baseline's models, test them, and write gained.json.

    steps: of the run, whose rounds are finished. labelled: the labelled set of its last round.
    """
    begin = time.perf_counter()
    found = comparisons(steps.config, _plan(steps), len(steps.pool))
    tested: dict[Model, _Tested] = {}
    for model in dict.fromkeys(model for one in found for model in (one.having, one.lacking)):
        path = place(steps.folder) / f"{model.name}.npz"
        if not steps.ranks.number(steps.ranks.first and path.exists()):
            _test(steps, model, labelled, path)
        if steps.ranks.first:
            tested[model] = _Tested.read(path)
    if steps.ranks.first:
        gains = [gain for one in found for gain in _gains(steps, one, tested, labelled)]
        notes = [*_left_out(steps, found), *_notes(tested, gains, steps.store.table.classes)]
        seconds = round(time.perf_counter() - begin, 3)
        write_json(place(steps.folder) / GAINED, asdict(Gained(gains, notes, seconds)))


@dataclass(frozen=True)
class _Tested:
    """A model's answers to T test images: labels and predicted classes, int64 [T], and Dice, float32 [T]."""

    labels: np.ndarray
    predicted: np.ndarray
    dice: np.ndarray

    @classmethod
    def read(cls, path: Path) -> _Tested:
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls(archive["labels"], archive["predicted"], archive["dice"])
        except Exception as error:  # a damaged archive raises nearly anything
            raise InputError(f"{path} cannot be read ({error}); remove it, and repeat the command") from error

    def values(self, measure: str) -> np.ndarray:
        """The value of each image, float64 [T]; NaN for one without a mask."""
        found = self.dice if measure == "dice" else self.predicted == self.labels
        return found.astype(np.float64)


def _test(steps: Steps, wanted: Model, labelled: Labelled, path: Path) -> None:
    """Train a model, or load it if it is the run's own; keep what it says of each test image."""
    model = steps.new_model()
    if _is_own(wanted, steps.config, _plan(steps)):
        weights = steps.folder.round(wanted.round_index) / "accuracy.safetensors"
        load_kept(model, steps.config.arch, weights, steps.ranks)
    else:
        _train(steps, model, _rows(steps, wanted, labelled), wanted)
    seen = evaluate(model, steps.store, steps.test_rows, steps.recipe.probe, steps.ranks).tested
    if steps.ranks.first:
        file = io.BytesIO()
        np.savez_compressed(
            file,
            ids=np.array(steps.ids(steps.test_rows)),
            labels=steps.store.labels[steps.test_rows].cpu().numpy(),
            predicted=seen.predicted.cpu().numpy(),
            dice=seen.maps.dice.cpu().numpy(),
        )
        write_bytes(path, file.getvalue())


def _plan(steps: Steps) -> Plan:
    """The plan up to the last round that was run, which `--stop-fraction auto` may have made earlier."""
    return steps.plan.until(int(steps.ranks.number(len(steps.lines))))


def _is_own(model: Model, config: Config, plan: Plan) -> bool:
    """True for the run's accuracy model of the last round, whose weights are kept."""
    return model == Model(config.regime, "chosen", plan.rounds - 1)


def _rows(steps: Steps, wanted: Model, labelled: Labelled) -> Tensor:
    """The images that a model is trained on, in the order in which they are labelled."""
    if wanted.images == "random":
        return _drawn_at_random(steps, wanted.round_index)
    last = wanted.round_index == _plan(steps).rounds - 1
    return labelled.rows if last else labelled.rows[: steps.plan.labelled[wanted.round_index]]


def _drawn_at_random(steps: Steps, round_index: int) -> Tensor:
    """The images that are labelled in a round of the run that has the criterion `random` and this seed."""
    rows = steps.start
    for query_index in range(1, round_index + 1):
        rest = steps.remaining(rows)
        chosen = queried(steps, "random", query.Pool(steps.ids(rest)), query_index)
        rows = torch.cat((rows, rest[chosen.positions.to(rest.device)]))
    return rows


def _train(steps: Steps, model: Classifier, rows: Tensor, wanted: Model) -> None:
    alpha = steps.config.its_alpha if steps.config.regime == wanted.regime else REGIMES[wanted.regime].alpha
    how = "the same images" if wanted.images == "chosen" else "images drawn at random"
    log.info("baseline: training %s on %d images, %s", wanted.regime, len(rows), how)
    maps = Masks.empty(len(rows), steps.store.image_size, steps.store.device)
    job = Job(model, alpha, f"baseline {wanted.regime}, {how}")
    none = torch.zeros_like(rows, dtype=torch.bool)
    steps.training([job], rows, maps, none, round_index=wanted.round_index).fit()


def _gains(steps: Steps, one: Comparison, tested: dict[Model, _Tested], labelled: Labelled) -> Iterator[Gain]:
    """Yield the gain in each measure of a comparison. One that fewer than two images have is left out."""
    having, lacking = tested[one.having], tested[one.lacking]
    for measure in one.measures:
        with_it, without = having.values(measure), lacking.values(measure)
        known = ~np.isnan(with_it - without)
        if known.sum() < 2:
            continue
        difference = (with_it - without)[known]
        low, high = interval(difference, seeds.stream(steps.config.seed, "baseline-interval"))
        yield Gain(
            what=one.what,
            measure=measure,
            labelled=len(_rows(steps, one.having, labelled)),
            having=float(with_it[known].mean()),
            lacking=float(without[known].mean()),
            mean=float(difference.mean()),
            low=low,
            high=high,
            images=int(known.sum()),
        )


def _left_out(steps: Steps, found: list[Comparison]) -> Iterator[str]:
    """Say why the criterion is not compared."""
    if steps.config.criterion != "random" and all(one.what != "criterion" for one in found):
        if steps.config.annotator == "people":
            yield "The criterion is not compared: people have not labelled images drawn at random."
        else:
            yield "The criterion is not compared: in no round has a query left images of the pool out."


def _notes(tested: dict[Model, _Tested], gains: list[Gain], classes: list[str]) -> Iterator[str]:
    """Sentences about figures that mean little."""
    for model, one in tested.items():
        if len(np.unique(one.predicted)) == 1 < len(classes):
            which = "its own" if model.images == "chosen" else "random"
            yield (
                f"{model.regime} on {which} images predicts {classes[one.predicted[0]]!r} for every test "
                f"image, so its accuracy is the share of that class and tells nothing about the model."
            )
    count = len(next(iter(tested.values())).labels) if tested else FEW
    if count < FEW:
        yield f"The {count} test images are few: intervals over fewer than {FEW} images are too narrow."
    for gain in gains:
        if gain.images < FEW <= count:
            yield (
                f"Only {gain.images} of the test images have a map: the interval of Dice over fewer than "
                f"{FEW} images is too narrow."
            )
