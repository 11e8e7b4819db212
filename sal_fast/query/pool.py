"""The pool that a criterion is given, and the query that it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, distributed, nn

Ties = Literal["key", "position"]
TIES: tuple[Ties, ...] = get_args(Ties)
Positions = Tensor | np.ndarray | Sequence[int]
Images = Callable[[Tensor], Tensor]
ROWS = 16_384  # the rows of a block; blocks keep the memory small for a pool of any size


class Query(NamedTuple):
    """The images to label next.

    positions: int64 [k], positions in the pool; the first is asked for first.
    scores: float64 [k], finite; a higher score is asked for earlier.
    """

    positions: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Labelled:
    """The L images that are labelled so far, in the order in which their labels came.

    ids: L ids; empty if they are not known.
    labels: int64 [L], class numbers (`Pool.classes` has their names); None if they are not known, as in
        `sal-fast select`.
    features: [L, d], the accuracy model's penultimate features; None unless the criterion reads features too.
    """

    ids: Sequence[str] = ()
    labels: Tensor | None = None
    features: Tensor | None = None


class Pool:
    """The unlabelled images that a criterion chooses from. `len(pool)` is their number N.

    Position i of every field belongs to one image. A field may be a mapped file. A criterion is given the
    fields that it declares with `needs`; reading another raises AttributeError.

    Args:
        ids: one id for each image. An image without one goes by its number as text.
        logits, features, labelled, model: see the properties of the same names.
        images: a function from int64 [n] positions to uint8 [n, S, S, 3] pictures, which decodes nothing
            before it is called.
        classes: the names of the classes, in the order of the logits' columns.
        device: where BADGE and core-set compute. None: where the features are.
        group: ranks that hold the same pool and divide the work of BADGE and core-set. Each of them gets the
            same query.

    Attributes:
        ties: the rule by which `select` decides ties (see there). It is set by `select`.
        tie_order: int64 [N], the positions in the order in which ties are decided. None: the rows stand in
            that order already. It is set by `select`, for a criterion that takes its rows in any order.
    """

    ties: Ties = "position"
    tie_order: Tensor | None = None

    def __init__(
        self,
        ids: Sequence[str],
        *,
        logits: Tensor | None = None,
        features: Tensor | None = None,
        labelled: Labelled | None = None,
        images: Images | None = None,
        model: nn.Module | None = None,
        classes: Sequence[str] = (),
        device: torch.device | None = None,
        group: distributed.ProcessGroup | None = None,
    ) -> None:
        self.ids, self.classes, self.device, self.group = ids, classes, device, group
        self._fields: dict[str, Any] = {
            "logits": logits,
            "features": features,
            "labelled": labelled,
            "images": images,
            "model": model,
        }

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def logits(self) -> Tensor:
        """[N, K], floating: the accuracy model's outputs before the softmax, in eval mode."""
        return self._given("logits")

    @property
    def features(self) -> Tensor:
        """[N, d], floating: the inputs of the accuracy model's last layer, in eval mode."""
        return self._given("features")

    @property
    def labelled(self) -> Labelled:
        """The images that are labelled so far."""
        return self._given("labelled")

    @property
    def model(self) -> nn.Module:
        """The accuracy model, in eval mode."""
        return self._given("model")

    def images(self, positions: Positions) -> Tensor:
        """The pictures at some positions, uint8 [n, S, S, 3], RGB.

        They are decoded by this call, so ask for some hundred at a time.
        """
        return self._given("images")(torch.as_tensor(positions, dtype=torch.int64))

    def highest(self, scores: Tensor, k: int) -> Query:
        """The query of the k highest scores ([N], floating or whole). Ties are decided by the pool's rule."""
        order = self.tie_order
        if order is None:
            best = scores.argsort(descending=True, stable=True)[:k]
        else:
            order = order.to(scores.device)
            best = order[scores[order].argsort(descending=True, stable=True)[:k]]
        return Query(best, scores[best].double())

    def has(self, name: str) -> bool:
        """True if the pool has this field."""
        return name == "ids" or self._fields[name] is not None

    def replace(self, **changes: Any) -> Pool:
        """A pool with other values of some of the arguments that this one was made with."""
        rest = {"ids": self.ids, "classes": self.classes, "device": self.device, "group": self.group}
        return Pool(**{**rest, **self._fields, **changes})

    def only(self, needs: frozenset[str]) -> Pool:
        """The pool without the fields that a criterion does not declare."""
        return self.replace(**dict.fromkeys(self._fields.keys() - needs))

    def check(self, criterion: str, needs: frozenset[str]) -> None:
        """Raise ValueError if a field that the criterion needs is missing, not finite or of other length."""
        for name in sorted(needs):
            if not self.has(name):
                raise ValueError(f"{criterion}: the pool has no {name}, which this criterion reads")
        matrices: dict[str, Tensor] = {
            name: self._fields[name] for name in ("logits", "features") if name in needs
        }
        for name, values in matrices.items():
            if len(values) != len(self):
                raise ValueError(f"{criterion}: expected {len(self)} rows of {name}, got {len(values)}")
        if {"labelled", "features"} <= needs:
            if self.labelled.features is None:
                raise ValueError(f"{criterion}: the pool has no features of the labelled images")
            matrices["features of the labelled images"] = self.labelled.features
        for name, values in matrices.items():
            masked = name == "logits" and values.ndim == 2 and values.shape[1] > 0
            if not all(bool(_read(rows, masked).isfinite().all()) for rows in values.split(ROWS)):
                but = " (-inf masks a class, but not all of an image)" if masked else ""
                raise ValueError(f"{criterion}: {name} contain NaN or infinity; expected finite numbers{but}")

    def _given(self, name: str) -> Any:
        value = self._fields[name]
        if value is None:
            raise AttributeError(
                f"this pool has no {name}: a criterion is given what it declares with "
                f"@sal_fast.query.needs({name!r}, ...)"
            )
        return value


def _read(rows: Tensor, masked: bool) -> Tensor:
    """The numbers that must be finite: all, or the largest of each row, which NaN and infinity make so."""
    return rows.amax(1) if masked else rows
