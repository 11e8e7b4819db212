"""Small run folders in the layout that `sal-fast run` writes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sal_fast.people.answers import Answers
from sal_fast.people.entry import entry
from sal_fast.people.question import Answer, Kind

POOL = 400
SKILL = {"random": -0.06, "entropy": -0.02}
LIFT = {"b1": 0.0, "segmenter": 0.05, "no-ai-saliency": 0.08, "tait": 0.1, "sal-single": 0.12}


def make_run(
    path: Path,
    *,
    accuracy: list[float] | None = None,
    dice: list[float] | list[None] | None = None,
    labelled: list[int] | None = None,
    rounds: int = 6,
    finished: bool = True,
    examples: int = 12,
    classes: tuple[str, ...] = ("circle", "square", "triangle"),
    wrong: tuple[int, ...] = (),
    dataset: str = "builtin",
    fingerprint: str = "0123456789abcdef",
    people: bool = False,
    per_class: bool = True,
    **config: Any,
) -> Path:
    """Write a run folder. `config` overrides settings; `wrong` are the examples it misclassifies.

    A `human_budget` of "auto" ends after 80 + 20 * seed images. With `people` a clock ran: 10 s for an image
    without a map, 25 s for one with a map.
    """
    settings = {
        "data": dataset,
        "regime": "sal",
        "criterion": "margin",
        "probe": "cam",
        "arch": "resnet18",
        "seed": 0,
        "image_size": 64,
        "human_budget": 0.2,
        "alpha": None,
        "out": path.name,
    } | config
    likely = _curves(settings, rounds)
    accuracy, dice = accuracy or likely[0], dice or likely[1]
    labelled = labelled or [40 + 20 * i for i in range(len(accuracy))]

    path.mkdir(parents=True)
    record = {
        "format": 1,
        "config": settings,
        "environment": {"sal_fast": "0.1.0", "torch": "2.11.0", "device": "cpu", "threads": 2},
        "data": {
            "name": dataset,
            "fingerprint": fingerprint,
            "classes": list(classes),
            "counts": {"train": POOL, "val": 100, "test": 200},
        },
        "splits": {"train": [], "val": [], "test": []},
        "start": [],
        "inputs": {},
    }
    (path / "run.json").write_text(json.dumps(record))
    lines = [
        _line(settings, people, *line)
        for line in zip(range(len(labelled)), labelled, accuracy, dice, strict=True)
    ]
    if per_class:
        for line in lines:
            line |= _figures(line, len(classes))
    (path / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        copied = {
            name: value
            for name, value in lines[-1].items()
            if name not in ("timings", "memory", "round", "per_class")
        }
        summary = copied | {"rounds": len(lines), "seconds": 99.5}
        (path / "summary.json").write_text(json.dumps(summary))
    if examples:
        folder = path / "rounds" / f"{len(lines) - 1:03d}"
        folder.mkdir(parents=True)
        np.savez(
            folder / "examples.npz",
            **_examples(settings, examples, len(classes), wrong, dice[-1] is not None),
        )
    return path


def let_people_answer(run: Path, *, page: bool = True) -> None:
    """Give a run the answers of two people, and its rounds the entry that follows from them.

    Ann draws 30 s, or corrects or accepts what the model made in 12 s and 4 s; a class alone takes 6 s; all
    that with some noise. Ben answers every tenth image as well. Without `page` the tool tells no kinds, and
    no times but the whole.
    """
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    rng = np.random.default_rng(len(lines))
    there, first, before = [], None, {"labelled": 0, "human_maps": 0}
    for index, line in enumerate(lines):
        new = line["labelled"] - before["labelled"]
        if line["human_maps"] == before["human_maps"] and first is None:
            first = index
        maps, before = first is None, line
        answers = Answers(run / "start" if index == 0 else run / "rounds" / f"{index - 1:03d}")
        answers.add(_answer(rng, f"{index}/{i}", "Ann", maps, page) for i in range(new))
        answers.add(_answer(rng, f"{index}/{i}", "Ben", maps, page) for i in range(0, new, 10))
        there.append(answers)
        line["people"] = entry(there, first)
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _answer(rng: np.random.Generator, name: str, who: str, maps: bool, page: bool) -> Answer:
    kinds: tuple[Kind, ...] = ("drawn", "corrected", "accepted")
    kind = kinds[int(rng.integers(3))] if maps else None
    mean = {"drawn": 30.0, "corrected": 12.0, "accepted": 4.0, None: 6.0}[kind]
    seconds = round(float(rng.gamma(9, mean / 9)), 3)
    mask = None
    if maps:
        y, x = np.mgrid[:16, :16]
        at = rng.normal(8, 1, 2)
        mask = np.where(np.hypot(x - at[0], y - at[1]) < 5, 255, 0).astype(np.uint8)
    label = "circle" if rng.random() < 0.6 else "square"
    answer = Answer(name, label, mask, who, seconds, False)
    if not page:
        return answer
    stroke = seconds / 3 if kind in ("drawn", "corrected") else None
    return replace(answer, kind=kind, idle=2.0, class_seconds=seconds / 5, stroke_seconds=stroke)


def _figures(line: dict[str, Any], classes: int) -> dict[str, Any]:
    """Figures of 200 test images whose classes are told apart equally well."""
    accuracy, dice = line["accuracy"], line["dice"]
    shares = {name: [accuracy] * classes for name in ("recall", "precision", "f1")}
    maps = {"dice": dice, "iou": None if dice is None else dice / (2 - dice), "pointing": dice}
    images = [200 // classes] * classes
    return {
        "balanced_accuracy": accuracy,
        "macro_f1": accuracy,
        "iou": maps["iou"],
        "pointing": maps["pointing"],
        "per_class": {
            "images": images,
            "predicted": images,
            **shares,
            **{name: [value] * classes for name, value in maps.items()},
        },
    }


def _curves(settings: dict[str, Any], rounds: int) -> tuple[list[float], list[float]]:
    """Accuracies and Dices that a reader would believe."""
    regime, criterion, seed = settings["regime"], settings["criterion"], settings["seed"]
    noise = np.random.default_rng([seed, len(regime), len(criterion)]).normal(0, 0.012, (2, rounds))
    x, lift = np.linspace(0, 1, rounds), LIFT.get(regime, 0.2)
    alpha = settings["alpha"] if settings["alpha"] is not None else 0.9
    accuracy = (
        0.1 * (alpha - 0.9)
        + 0.35
        + SKILL.get(criterion, 0.0)
        + 0.45 * (1 - np.exp(-3 * x))
        + lift / 10
        + noise[0]
    )
    lift *= 1.4 - 0.4 * alpha / 0.9
    dice = 0.38 + lift * (0.6 + 0.4 * x) + noise[1]
    return accuracy.round(4).tolist(), dice.round(4).tolist()


def _line(
    settings: dict[str, Any], people: bool, i: int, labelled: int, accuracy: float, dice: float | None
) -> dict[str, Any]:
    regime, auto = settings["regime"], settings["human_budget"] == "auto"
    share = 80 + 20 * settings["seed"] if auto else round(settings["human_budget"] * POOL)
    budget = {"b1": 0, "b2": labelled, "segmenter": 0}.get(regime, share)
    human = min(labelled, budget)
    asked = {
        "people": {
            "labelled": labelled,
            "maps": human,
            "skipped": i,
            "annotators": 2,
            "seconds": 25.0 * human + 10.0 * (labelled - human),
            "label_seconds": 10.0 * (labelled - human),
            "map_seconds": 25.0 * human,
        }
    }
    trial = {"trial_dice": 0.3 + 0.1 * i if i and labelled <= budget else None}
    empty = i if regime == "sal" and labelled > human else 0
    generated = 0 if regime in ("b1", "b2", "no-ai-saliency") else labelled - human - empty
    return {
        "round": i,
        "labelled": labelled,
        "human_maps": human,
        "generated_maps": generated,
        "empty_maps": empty,
        "accuracy": accuracy,
        "dice": dice,
        "dice_floor": None if dice is None else 0.17,
        "dice_images": 0 if dice is None else 200,
        "val_accuracy": accuracy,
        "best_epoch": 7,
        "seconds": 10.0 + i,
        "timings": {"train": 7.0 + i, "evaluate": 1.5, "score": 0.8, "select": 0.2, "annotate": 0.5},
        "memory": {"peak_rss_mb": 900},
        **(trial if auto else {}),
        **(asked if people else {}),
    }


def _examples(
    settings: dict[str, Any], n: int, classes: int, wrong: tuple[int, ...], masked: bool
) -> dict[str, Any]:
    """A disc on noise; the CAM is a blob on the disc, for b1 somewhere near it. Every sixth has no mask."""
    rng, size = np.random.default_rng(5), settings["image_size"]
    centre = rng.uniform(0.3, 0.7, (2, n, 1, 1))
    seen = centre + rng.normal(0, 0.3 if settings["regime"] == "b1" else 0.04, centre.shape)
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    disc = np.hypot(x - centre[0], y - centre[1]) < 0.2
    has_mask = masked & (np.arange(n) % 6 != 2)
    y, x = (np.mgrid[:8, :8] + 0.5) / 8
    labels = np.arange(n) % classes
    shift = np.isin(np.arange(n), wrong)
    return {
        "ids": np.array([f"test/{i:03d}.png" for i in range(n)]),
        "labels": labels,
        "predicted": (labels + shift) % classes,
        "images": np.uint8(
            rng.integers(40, 110, (n, size, size, 3)) + disc[..., None] * np.array([90, 60, 10])
        ),
        "masks": np.uint8(255 * (disc & has_mask[:, None, None])),
        "has_mask": has_mask,
        "cams": np.exp(-8 * ((x - seen[0]) ** 2 + (y - seen[1]) ** 2)).astype(np.float32),
        "dice": np.where(has_mask, rng.uniform(0.3, 0.9, n), np.nan).astype(np.float32),
    }
