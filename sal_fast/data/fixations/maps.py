"""The graded map of an image: where people looked, and how long."""

from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter

from sal_fast.data.fixations.points import Fixated

SIGMA = 1 / 25  # the default sigma, a share of the width: near one degree of visual angle on usual screens


def render(fixated: Fixated, sigma: float | None = None, longest: int | None = None) -> np.ndarray:
    """Render the graded map of one image, uint8 [h, w]: 255 where people looked longest, 0 where nobody did.

    Each observer's map is `sum_k ms_k G(x - x_k, y - y_k)`, divided by its sum over the pixels: all observers
    count the same, however long they looked. G is a Gaussian with a deviation of `sigma` pixels of the image,
    cut off at 4 sigma and at the border. The map is the mean over the observers, scaled to a maximum of 255
    and rounded. An observer without time inside the image is left out; without any observer the map is empty.
    We blur all observers at once: a fixation between pixels is shared out among its four, and the sums are
    known beforehand.

    Args:
        fixated: the image's fixations.
        sigma: in pixels of the image; None: its width / 25. One degree of visual angle is the usual choice
            (Le Meur and Baccino 2013, "Methods for comparing scanpaths and saliency maps"); how many pixels
            that is depends on the screen and the viewing distance.
        longest: the longer side of the map in pixels, if the image is larger; points and sigma are scaled
            with it. None: the image's own size.
    """
    sigma = fixated.width * SIGMA if sigma is None else sigma
    blur = partial(gaussian_filter, mode="constant")
    size = np.array([fixated.height, fixated.width])
    shape = size if longest is None else np.rint(size * min(1, longest / size.max())).clip(1).astype(int)
    scale = shape / size
    # the share of a Gaussian about each row and each column that lies on the map; a point's is the product
    kept = [blur(np.ones(int(n)), sigma * s) for n, s in zip(shape, scale, strict=True)]
    durations = np.zeros(shape)
    for points in fixated.observers:
        if not points[:, 2].any():
            continue
        at = np.clip((points[:, 1::-1] + 0.5) * scale - 0.5, 0, shape - 1)
        weights = points[:, 2] / points[:, 2].max()
        shares = [np.interp(at[:, axis], np.arange(shape[axis]), kept[axis]) for axis in (0, 1)]
        weights = weights / (weights * shares[0] * shares[1]).sum()
        low = np.floor(at).astype(int)
        part, high = at - low, np.minimum(low + 1, shape - 1)
        for rows, in_row in ((low[:, 0], 1 - part[:, 0]), (high[:, 0], part[:, 0])):
            for columns, in_column in ((low[:, 1], 1 - part[:, 1]), (high[:, 1], part[:, 1])):
                np.add.at(durations, (rows, columns), weights * in_row * in_column)
    if not durations.any():
        return np.zeros(shape, dtype=np.uint8)
    graded = blur(durations.astype(np.float32), sigma * scale)
    return np.rint(graded * (255 / graded.max())).astype(np.uint8)
