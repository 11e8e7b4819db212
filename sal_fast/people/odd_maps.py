"""Maps that a person most likely did not mean, so that we ask again. Nothing but numpy is needed here."""

from typing import Literal

import numpy as np

Odd = Literal["inverted", "full", "empty"]
NEARLY_ALL = 0.95  # the share of the picture that a full map marks
MOST = 0.75  # the share of the border that an inverted map marks


def asked_back(mask: np.ndarray) -> Odd | None:
    """Say in what way a map, uint8 [H, W], is odd; None if it is not.

    A pixel is marked if it has more than half of the map's largest value.

    empty: nothing is marked.
    full: at least 95 % of the picture is marked.
    inverted: the background seems to be marked instead of the object. All four corners are marked, at least
        three quarters of the border, and less than half of the middle, which is the half of the width and of
        the height about the centre. So an object that reaches three sides of the picture is not inverted.
    """
    top = int(mask.max())
    if top == 0:
        return "empty"
    marked = mask > top / 2
    if marked.mean() >= NEARLY_ALL:
        return "full"
    height, width = marked.shape
    corners = marked[[0, 0, -1, -1], [0, -1, 0, -1]]
    border = np.concatenate([marked[0], marked[-1], marked[1:-1, 0], marked[1:-1, -1]])
    middle = marked[height // 4 : height - height // 4, width // 4 : width - width // 4]
    if corners.all() and border.mean() >= MOST and middle.mean() < 0.5:
        return "inverted"
    return None
