"""A generator of maps: what differs in colour from the picture's edge, since subjects are seldom cut off.

`sal-fast run --data photos/ --generator examples/plugins/generator.py:unlike_the_edge` uses it.
"""

import numpy as np


def unlike_the_edge(pictures, labels):
    """Heat maps [H, W]: the distance of each pixel's colour from the mean colour of the four edges."""
    maps = []
    for picture in pictures:
        pixels = picture.astype(np.float32)
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).mean(0)
        maps.append(np.linalg.norm(pixels - edge, axis=2))
    return maps
