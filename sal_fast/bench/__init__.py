"""The benchmarks: they compare the parts of a run, and single ops, with what one would otherwise write.

`sal-fast bench` is the command. `run` is the same from Python; the ops need torch and numpy alone for it.
"""

import os
from typing import Any

# numpy's BLAS threads spin for some 20 ms after each product, on the cores that the next variant needs.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
# torch.profiler reports a machine without a GPU as an error.
os.environ.setdefault("KINETO_LOG_LEVEL", "5")


def run(name: str, **options: Any) -> dict[str, Any]:
    """Measure a benchmark and return its document (see `result`).

    Args:
        name: one of `suite.NAMES`.
        options: the benchmark's options, named as on the command line with `_` for `-`.

    Raises:
        InputError: an option has a value that it cannot have.
    """
    from sal_fast.bench import measure, suite

    benchmark = suite.load(name)
    kind = benchmark.setup
    common = {name: options.pop(name) for name in kind.__dataclass_fields__ if name in options}
    return measure.measure(benchmark, kind(**common), **options)
