"""Images whose top predicted class has the lowest probability (paper, App. A.1)."""

from sal_fast import ops
from sal_fast.query.criterion import needs
from sal_fast.query.pool import Pool, Query


@needs("logits", any_order=True)
def select(pool: Pool, k: int, seed: int) -> Query:
    return pool.highest(ops.uncertainty(pool.logits, "least-confidence"), k)
