"""The progress of a query that may take long."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import distributed

from sal_fast._util import progress
from sal_fast.query.pool import Pool

LONG = 10.0  # seconds; a query that takes longer gets a line in the log
logger = logging.getLogger(__name__)


@contextmanager
def shown(criterion: str, pool: Pool, k: int) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that an op calls with (picked, to pick). It moves a bar on a terminal.

    A query that takes longer than LONG also gets a line in the log. In a group only the first rank does this.
    """
    if pool.group is not None and distributed.get_rank(pool.group) > 0:
        yield lambda picked, total: None
        return
    begin = time.perf_counter()
    with progress.bar(f"{criterion} query", k, log=False) as advance:
        there = 0

        def show(picked: int, total: int) -> None:
            nonlocal there
            advance(picked - there)
            there = picked

        yield show
    spent = time.perf_counter() - begin
    if spent > LONG:
        logger.info("%s query: %d in %s", criterion, k, progress.duration(spent))
