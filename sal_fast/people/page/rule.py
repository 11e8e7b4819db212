"""Boxes and points from the page, made into maps by a rule (`sal_fast.people.rules`)."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sal_fast.data import files
from sal_fast.errors import InputError
from sal_fast.people import rules
from sal_fast.people.segmenter import Segmenter

MOST_POINTS = 200


class Rules:
    """Makes maps. `checkpoint` holds the weights of Segment Anything for the rule `segmenter`, or is None."""

    def __init__(self, checkpoint: str | None) -> None:
        self.segmenter = None if checkpoint is None else Segmenter(checkpoint)

    def close(self) -> None:
        """End the segmenter's process."""
        if self.segmenter is not None:
            self.segmenter.close()

    def made(self, path: Path, small: np.ndarray | None, says: Mapping[str, Any]) -> np.ndarray:
        """The map, uint8 [H, W] of 0 or 255, that a rule makes of what the page says.

        path: the picture. small: the model's map of the class, or None. Raises InputError for anything else
        than a known rule with a box or points.
        """
        rule, box, points = says.get("rule"), says.get("box"), says.get("points")
        if rule not in rules.RULES:
            raise InputError(f"unknown rule {rule!r}; expected one of {', '.join(rules.RULES)}")
        if rule == "model" and small is None:
            raise InputError("there is no map of a model for this class yet; take another rule")
        picture = _pixels(path)
        if box is not None:
            if not isinstance(box, list) or len(box) != 4 or not all(map(_number, box)):
                raise InputError("a box has four numbers; draw it again")
            x0, y0, x1, y1 = map(float, box)
            return rules.from_box(rule, picture, (x0, y0, x1, y1), small, self.segmenter)
        if not isinstance(points, list) or not 0 < len(points) <= MOST_POINTS:
            raise InputError(f"expected a box, or 1 to {MOST_POINTS} points")
        if not all(isinstance(one, list) and len(one) == 3 and all(map(_number, one)) for one in points):
            raise InputError("a point has three numbers; set it again")
        clicks = [(float(x), float(y), bool(on)) for x, y, on in points]
        return rules.from_points(rule, picture, clicks, small, self.segmenter)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


@lru_cache(maxsize=2)
def _pixels(path: Path) -> np.ndarray:
    return files.rgb(files.read(path))
