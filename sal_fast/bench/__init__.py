"""What the parts of a run cost here, against what one would otherwise write: `sal-fast bench`."""

import os

# numpy's BLAS threads spin for some 20 ms after each product, on the cores of whatever is timed next.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
# torch.profiler reports a machine without a GPU as an error.
os.environ.setdefault("KINETO_LOG_LEVEL", "5")
