"""Measure maps that rules make from boxes and points: their Dice with true masks, and their time.

    pip install "sal-fast[label]"
    python worth_of_rules.py DIR [MOST]

DIR has images/<class>/ and masks/<class>/, as docs/data.md says. If it has more than MOST images, we take
every nth. The box is the smallest one around the true mask, and the same with 10 % more width and height. The
points are those that a person might give who sees the truth: each lies in the middle of the largest error
that is left, where it is farthest from the error's edge. The first is inside.
"""

import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from sal_fast.data import files
from sal_fast.people import rules

WIDER, POINTS = 0.1, 3


def main(folder: Path, most: int = 200) -> None:
    """Print a line for each way of making a map."""
    masks = sorted((folder / "masks").rglob("*.png"))
    found = defaultdict(list)
    for path in masks[:: -(-len(masks) // most)]:
        truth = np.asarray(Image.open(path).convert("L")) > 127
        below = path.relative_to(folder / "masks").with_suffix("")
        image = next((folder / "images" / below.parent).glob(f"{below.name}.*"))
        picture = files.rgb(files.read(image))
        if truth.any() and truth.shape == picture.shape[:2]:
            for name, made, seconds in maps(picture, truth):
                found[name].append((dice(made, truth), seconds))
    for name, values in found.items():
        mean_dice, seconds = np.mean(values, axis=0)
        print(f"{name}: Dice {mean_dice:.3f}, {1000 * seconds:.1f} ms, {len(values)} images")


def maps(picture, truth):
    """Yield (name, map, seconds) for a picture and its true mask."""
    rows, columns = np.nonzero(truth)
    x0, y0, x1, y1 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    wide, high = (x1 - x0) * WIDER / 2, (y1 - y0) * WIDER / 2
    boxes = {"tight box": (x0, y0, x1, y1), "wider box": (x0 - wide, y0 - high, x1 + wide, y1 + high)}
    for name, box in boxes.items():
        for rule in ("box", "grabcut"):
            begin = time.perf_counter()
            made = rules.from_box(rule, picture, box, None)
            yield f"{name}, {rule}", made > 0, time.perf_counter() - begin
    points, made = [], np.zeros_like(truth)
    for count in range(1, POINTS + 1):
        missing, more = middle(truth & ~made), middle(made & ~truth)
        points.append((*missing[1], True) if missing[0] >= more[0] else (*more[1], False))
        begin = time.perf_counter()
        made = rules.from_points("grabcut", picture, points, None) > 0
        yield f"{count} points, grabcut", made, time.perf_counter() - begin


def middle(region):
    """The pixel of a region that is farthest from its edge: (its distance, (x, y) of its centre)."""
    distance = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(distance.argmax(), distance.shape)
    return distance.max(), (x + 0.5, y + 0.5)


def dice(a, b):
    """Twice the pixels in both, divided by the pixels in each."""
    return 2 * (a & b).sum() / (a.sum() + b.sum())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
