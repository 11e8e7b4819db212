"""Choose the images of the pool that are labelled next.

A criterion is a function `f(pool, k, seed)` (see `Criterion`). Each of the six that come with this package
has its own file. Like the criteria of a user they are found by name through `sal_fast.plugins`.
"""

from sal_fast import plugins
from sal_fast.errors import InputError
from sal_fast.query.criterion import UNDECLARED, Criterion, checked, needs
from sal_fast.query.pool import TIES, Labelled, Pool, Query, Ties
from sal_fast.query.ties import in_order, key_order, unsorted_order


def select(
    criterion: str | Criterion,
    pool: Pool,
    k: int,
    *,
    seed: int,
    ties: Ties = "key",
    key_seed: int | None = None,
) -> Query:
    """Pick min(k, N) images of a pool of N by a criterion.

    The same pool and seeds give the same query.

    Args:
        criterion: a name (`margin`), `file.py:function`, `package.module:function`, or the function itself.
        k: how many images to ask for.
        seed: 0 to 2^63 - 1; it decides what the criterion draws at random.
        ties: the rule for images that a criterion cannot tell apart. With `key` the rows are sorted by
            `key_order` before the criterion sees them, and the query does not depend on their order in the
            pool. With `position` they stay as they are, so that the lowest position wins, as in runs of
            version 0.1.0.
        key_seed: the seed of the keys. A run gives its own seed here. None: `seed`.

    Returns:
        positions (in the caller's order of rows) and scores, on the device that the criterion left them on.

    Raises:
        ValueError: k is negative, the rule for ties is unknown, the pool lacks a field that the criterion
            needs, or the fields have different lengths or contain NaN or infinity.
        InputError: the criterion cannot be loaded, or it returns something that is no query.
    """
    function = loaded(criterion)
    name = criterion if isinstance(criterion, str) else plugins.described(criterion)
    if k < 0:
        raise ValueError(f"{name}: k must be at least 0, got {k}")
    if ties not in TIES:
        raise ValueError(f"{name}: ties must be one of {', '.join(TIES)}, got {ties!r}")
    fields = needs_of(function)
    pool.check(name, fields)
    k = min(k, len(pool))
    if k == 0:
        return checked(name, [], 0, 0)
    order = None
    if ties == "key":
        order = unsorted_order(pool.ids, seed if key_seed is None else key_seed)
    handed = pool.only(fields)
    if getattr(function, "any_order", False):
        handed.tie_order, order = order, None
    elif order is not None:
        handed = in_order(handed, order)
    handed.ties = ties
    positions, scores = checked(name, function(handed, k, seed), k, len(pool))
    if order is not None:
        positions = order.to(positions.device)[positions]
    return Query(positions, scores)


def loaded(criterion: str | Criterion) -> Criterion:
    """The function of a criterion. Raises InputError if it cannot be loaded or called."""
    function = plugins.load("criterion", criterion) if isinstance(criterion, str) else criterion
    if not callable(function):
        raise InputError(f"criterion {criterion}: expected a function f(pool, k, seed), got {function!r}")
    return function


def needs_of(criterion: str | Criterion) -> frozenset[str]:
    """The fields of a pool that a criterion declares to read (see `needs`)."""
    return frozenset(getattr(loaded(criterion), "needs", UNDECLARED))


__all__ = [
    "Criterion",
    "Labelled",
    "Pool",
    "Query",
    "Ties",
    "key_order",
    "loaded",
    "needs",
    "needs_of",
    "select",
]
