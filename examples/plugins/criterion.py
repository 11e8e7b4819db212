"""A criterion: uncertain images first, and those of rarely labelled classes before the others.

`sal-fast run --data photos/ --criterion examples/plugins/criterion.py:rare_first` uses it.
"""

import torch

from sal_fast.query import needs


@needs("logits", "labelled")
def rare_first(pool, k, seed):
    """The margin's complement, divided by how often the predicted class has been labelled."""
    probs = pool.logits.double().softmax(1)
    first, second = probs.topk(2, dim=1).values.T
    counts = torch.bincount(pool.labelled.labels, minlength=probs.shape[1])
    scores = (1 - first + second) / (1 + counts[probs.argmax(1)])
    return pool.highest(scores, k)
