"""The plan of a run in words, before it starts, with an estimate of its time."""

import math

import torch

from sal_fast._util.progress import duration
from sal_fast.experiment import baseline
from sal_fast.experiment.loading import load
from sal_fast.experiment.rounds import Steps
from sal_fast.experiment.watch import seconds_left
from sal_fast.train import Job, validation_interval
from sal_fast.train.recipe import FORWARDS


def plan_in_words(steps: Steps) -> str:
    """The rounds, the images of a query, what people are asked for, and the time that it may take."""
    plan = steps.plan
    sizes = [plan.query_size(query_index) for query_index in range(1, plan.rounds)]
    most = "at most " * plan.open_end
    queries = f", then {len(sizes)} queries of {_span(sizes)}" if sizes else ""
    return (
        f"plan: {most}{plan.rounds} round{'s' * (plan.rounds != 1)}, {plan.labelled[0]} images at the start"
        f"{queries}; people label {most}{plan.labelled[-1]} images and draw {_maps(steps)}\n"
        f"{_baseline(steps)}{_time(steps)}"
    )


def _baseline(steps: Steps) -> str:
    """The models that are trained for comparison after the rounds, as a line; empty if there are none."""
    sizes = " and ".join(str(steps.plan.labelled[model.round_index]) for model in _baseline_models(steps))
    told = f"baseline: then b1 is trained on {sizes} images, for comparison (--baseline none leaves it out)\n"
    return told if sizes else ""


def _baseline_models(steps: Steps) -> list[baseline.Model]:
    if steps.config.baseline == "none":
        return []
    return baseline.trained_models(steps.config, steps.plan, len(steps.pool))


def _span(sizes: list[int]) -> str:
    """The sizes of the queries. The last one takes the remainder, and may be another."""
    low, high = min(sizes[:-1] or sizes), max(sizes[:-1] or sizes)
    span = f"{low}" if low == high else f"{low} to {high}"
    return span if low <= sizes[-1] <= high else f"{span} (the last of {sizes[-1]})"


def _maps(steps: Steps) -> str:
    """How many maps people draw; with `--human-budget auto` only bounds are known.

    Data that are there already may have fewer.
    """
    sources = steps.answering.turns.certain_sources()
    sizes = [steps.plan.query_size(index) for index, source in enumerate(sources) if source == "human"]
    drawn = f"{sum(sizes)} maps" if sizes else "no maps"
    if steps.plan.auto and sizes:
        drawn = f"at least {drawn}, at most {steps.plan.labelled[-1]}"
    there, pool = int(steps.store.has_mask[steps.pool].sum()), len(steps.pool)
    if sizes and there < pool and steps.config.annotator == "data":
        drawn += f", as far as these images have one ({there} of {pool} training images have)"
    if sizes and there and steps.config.uses_own_masks:
        if there == pool:
            return "no maps, because all training images have masks, which are used"
        own = int(steps.store.has_mask[steps.start].sum())
        most = steps.plan.labelled[-1] if steps.plan.auto else sum(sizes)
        drawn = (
            f"at most {most - own} maps, none of images that have masks ({own} of the {len(steps.start)} at "
            f"the start have one)"
        )
    return drawn


def _time(steps: Steps) -> str:
    if steps.ended:
        return "time: all rounds are finished"
    if steps.finished_rounds:
        left = seconds_left(load(steps.folder.path)) if steps.ranks.first else 0.0
        return f"time: about {duration(left)} left, an estimate from the last finished rounds"
    each = _seconds_per_image(steps)
    if each is None:
        return "time: not known before the first round; the table tells it then"
    people = ", and the people's time" if steps.config.annotator == "people" else ""
    return f"time: about {duration(_total(steps, each))}{people}; an estimate from one batch"


def _seconds_per_image(steps: Steps) -> float | None:
    """The time that training one model on one image takes, measured on a batch.

    None if it cannot be known before the first round.
    """
    known = steps.pool[steps.store.labels[steps.pool] >= 0]
    rows = known[: min(steps.recipe.batch_size, steps.plan.labelled[0])]
    if steps.ranks.count > 1 or len(rows) < 2:
        return None
    try:
        job = Job(steps.new_model(), steps.config.its_alpha, "model on trial")
        maps, has_map = steps.store.masks[rows], steps.store.has_mask[rows]
        return steps.training([job], rows, maps, has_map, round_index=0).seconds_per_image()
    except torch.OutOfMemoryError:  # the first round will cut its batches
        return None


def _total(steps: Steps, each: float) -> float:
    """The seconds of all rounds, if training on an image takes `each`, and looking at one a third of it."""
    plan, turns, recipe = steps.plan, steps.answering.turns, steps.recipe
    validated, tested = len(steps.store.rows("val")), len(steps.test_rows)
    work = [(labelled, turns.work(index, [])) for index, labelled in enumerate(plan.labelled)]
    looked = sum(len(steps.pool) - labelled for labelled in plan.labelled)
    work += [(plan.labelled[model.round_index],) * 2 for model in _baseline_models(steps)]
    trained = 0
    for labelled, images in work:
        every = validation_interval(labelled, validated) if recipe.val_every == "auto" else recipe.val_every
        trained += recipe.epochs * images
        looked += images // labelled * validated * math.ceil(recipe.epochs / every) + tested
    return each * (trained + looked / FORWARDS)
