"""Images drawn uniformly from the pool (paper, App. A.1)."""

import numpy as np

from sal_fast import seeds
from sal_fast.query.criterion import needs
from sal_fast.query.pool import Pool


@needs()
def select(pool: Pool, k: int, seed: int) -> np.ndarray:
    return seeds.stream(seed, "random-criterion").permutation(len(pool))[:k]
