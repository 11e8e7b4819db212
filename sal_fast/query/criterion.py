"""The contract of a criterion: what it declares to read, and what it may return."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from sal_fast._util.suggest import suggest
from sal_fast.errors import InputError
from sal_fast.query.pool import Pool, Positions, Query

Criterion = Callable[[Pool, int, int], Positions | tuple[Positions, Any] | Query]
"""A function `f(pool, k, seed)` with 1 <= k <= len(pool).

It returns k different positions of the pool, the one to be labelled first at the front. It may also return a
pair of positions and scores, where a higher score is asked for earlier. It draws random numbers from its own
generators, made from `seed`, and changes nothing in the pool.
"""

Field = Literal["ids", "logits", "features", "labelled", "images", "model"]
FIELDS: tuple[Field, ...] = get_args(Field)
UNDECLARED = frozenset({"ids", "logits", "features", "labelled"})  # given if a criterion declares nothing
Declared = TypeVar("Declared", bound=Callable[..., Any])


def needs(*fields: Field, any_order: bool = False) -> Callable[[Declared], Declared]:
    """Declare which fields of the pool a criterion reads; it is given these and no others.

    A criterion without a declaration is given ids, logits, features and what is labelled, but neither images
    nor the model. `labelled.features` are there if the criterion declares `features` too.

    Args:
        any_order: the criterion takes its rows in any order and leaves ties to `pool.highest`. This spares a
            sorted copy of the fields; use it where an image's score depends on that image alone.

    Raises ValueError for a field that a pool cannot have.
    """
    for field in fields:
        if field not in FIELDS:
            raise ValueError(f"unknown field {field!r} of a pool{suggest(field, FIELDS)}")

    def declare(criterion: Declared) -> Declared:
        vars(criterion).update(needs=frozenset(fields), any_order=any_order)
        return criterion

    return declare


def checked(name: str, answer: object, k: int, size: int) -> Query:
    """Check the answer of a criterion, and return it as a Query. Missing scores become k, k - 1, ..., 1.

    The answer has to be k different whole numbers in 0..size-1, perhaps with k finite scores. Raises
    InputError, which says what is wrong, if it is not.
    """
    expected = f"criterion {name}: expected {k} different positions of 0 to {size - 1}"
    given, scores = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, None)
    positions = _numbers(given)
    if positions is None or positions.is_floating_point() or positions.dtype == torch.bool:
        raise InputError(f"{expected} as a tensor, an array or a list of whole numbers, got {_what(given)}")
    if len(positions) != k:
        raise InputError(f"{expected}, got {len(positions)} positions")
    positions = positions.long()
    outside = positions[(positions < 0) | (positions >= size)]
    if len(outside):
        raise InputError(f"{expected}, got position {int(outside[0])}")
    found, counts = positions.unique(return_counts=True)
    if len(found) < k:
        raise InputError(f"{expected}, got position {int(found[counts > 1][0])} more than once")
    if scores is None:
        return Query(positions, torch.arange(k, 0, -1, dtype=torch.float64, device=positions.device))
    values = _numbers(scores)
    if values is None or len(values) != k:
        raise InputError(f"criterion {name}: expected {k} scores, one for each position, got {_what(scores)}")
    if not bool(values.isfinite().all()):
        raise InputError(f"criterion {name}: the scores contain NaN or infinity; expected finite numbers")
    return Query(positions, values.detach().double().to(positions.device))


def _numbers(given: object) -> Tensor | None:
    """The answer as a vector of numbers; None if it is none."""
    if not isinstance(given, Tensor):
        try:
            array = np.array(given)  # a copy, because it may be reversed or read-only
            given = torch.from_numpy(array if array.size else array.astype(np.int64))
        except (TypeError, ValueError):
            return None
    return given if given.ndim == 1 and not given.is_complex() else None


def _what(given: object) -> str:
    """Describe a value of the wrong kind in a few words."""
    if isinstance(given, Tensor | np.ndarray):
        return f"{type(given).__name__} {given.dtype} {list(given.shape)}"
    return f"{type(given).__name__} {str(given)[:60]}"
