"""An augmentation: shifts, as a camera that is not quite steady makes them, and noise.

`sal-fast run --data photos/ --augment examples/plugins/augmentation.py:shaken` uses it.
"""

import numpy as np


def shaken(image, map, rng):
    """Shift image and map alike, by up to an eighth of their side, around the edges."""
    most = len(image) // 8
    by = rng.integers(-most, most + 1, size=2)
    noisy = image + rng.normal(0, 8, image.shape)
    image = np.roll(noisy, by, axis=(0, 1)).clip(0, 255).astype(np.uint8)
    return image, np.roll(map, by, axis=(0, 1))
