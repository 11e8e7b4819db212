"""What the ops and the selections cost, beside what a user would otherwise write: see README.md."""

import os

# numpy's BLAS threads spin for some 20 ms after each product, on the cores of whatever is timed next.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
