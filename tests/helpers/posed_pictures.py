"""Runs that wait for people, with any pictures and maps of a model: nothing is trained for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from experiment_runs import arguments, command
from PIL import Image

from sal_fast.people.suggested import Suggested

CLASSES = ("blue", "green", "red")


def waiting_run(data: Path, out: Path) -> Path:
    """A run in `out` that waits for the answers to its first query."""
    words = arguments(data=data, out=out, annotator="people", start_fraction=0.5, allow_leaks=True)
    process = command("run", *words)
    said = process.communicate()
    assert process.returncode == 75, said
    return out


def pictures(folder: Path, count: int, size: tuple[int, int] = (300, 200), different: int = 8) -> list[Path]:
    """JPEGs with a coloured ellipse on a soft ground. After the first few they are links to these."""
    folder.mkdir(parents=True)
    made: list[Path] = []
    y, x = np.mgrid[: size[1], : size[0]]
    for i in range(count):
        path = folder / f"{i:03d}.jpg"
        if i >= different:
            path.hardlink_to(made[i % different])
        else:
            ground = [120 + 60 * np.sin(x / size[0] * 5 + i), 140 + 50 * np.cos(y / size[1] * 4), 90 + 0 * x]
            pixels = np.stack(ground, -1)
            middle = (size[0] * (0.3 + 0.05 * i), size[1] * (0.7 - 0.05 * i))
            inside = ((x - middle[0]) / size[0] * 5) ** 2 + ((y - middle[1]) / size[1] * 5) ** 2 < 1
            pixels[inside] = (170, 60 + 10 * i, 40)
            Image.fromarray(pixels.astype(np.uint8)).save(path, quality=90)
        made.append(path)
    return made


def small_maps(count: int, side: int = 7) -> np.ndarray:
    """A model's maps, uint8 [count, 2, side, side], for two classes of each picture.

    Each leaves a corner of its picture unmarked, so that nobody is asked whether it is inverted.
    """
    maps = np.random.default_rng(0).integers(0, 256, (count, 2, side, side)).astype(np.uint8)
    maps[:, :, 0, 0] = 0
    return maps


def pose(
    template: Path,
    out: Path,
    images: Sequence[Path],
    classes: Sequence[str] = CLASSES,
    maps: np.ndarray | None = None,
    change: Callable[[dict], None] | None = None,
) -> Path:
    """A copy of a run that waits, which asks about other images and classes, with a model's maps or none."""
    shutil.copytree(template, out)
    file = out / "start" / "question.json"
    asked = json.loads(file.read_text())
    ids = [f"picture/{i:03d}" for i in range(len(images))]
    asked.update(ids=ids, images=[str(path) for path in images], classes=list(classes), labels={}, has_map=[])
    if change is not None:
        change(asked)
    file.write_text(json.dumps(asked))
    if maps is not None:
        count, top = maps.shape[:2]
        numbers = np.tile(np.arange(top), (count, 1))
        shares = np.tile(np.linspace(0.7, 0.1, top, dtype=np.float32), (count, 1))
        Suggested(ids, numbers, shares, maps).write(out / "start")
    return out
