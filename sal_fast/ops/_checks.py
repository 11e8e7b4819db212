"""The checks that the public ops share. They raise TypeError for types, and ValueError for shapes and ranges.

Every message says what was expected and what was given. These are plain loops, because a small kernel takes
less time than a few generators and dictionaries.
"""

from collections.abc import Iterable
from operator import index
from typing import Any

import torch
from torch import Tensor

from sal_fast.ops._modes import plain

_COMPUTED = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def a_tensor(op: str, name: str, value: object) -> None:
    """Check that `value` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(value).__name__}")


def integer(op: str, name: str, value: Any, expected: str = "an int") -> int:
    """The whole number that `value` is: an int, one of numpy's, or a symbol of a traced graph."""
    if isinstance(value, (int, torch.SymInt)):
        return value  # type: ignore[return-value]
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{op}: {name} must be {expected}, got {type(value).__name__}") from None


def floating(op: str, **tensors: Tensor) -> None:
    """Check that every argument is a tensor of a floating dtype."""
    for name, value in tensors.items():
        a_tensor(op, name, value)
        if not value.is_floating_point():
            raise TypeError(f"{op}: {name} must be of a floating dtype, got {value.dtype}")


def computed(op: str, **tensors: Tensor) -> None:
    """Check that every argument is a tensor of a dtype in which there is arithmetic, so not of float8."""
    floating(op, **tensors)
    for name, value in tensors.items():
        if value.dtype not in _COMPUTED:
            raise TypeError(f"{op}: {name} must be of dtype {names(_COMPUTED)}, got {value.dtype}")


def tensor(op: str, dtype: torch.dtype, **tensors: Tensor) -> None:
    """Check that every argument is a tensor of this dtype."""
    for name, value in tensors.items():
        a_tensor(op, name, value)
        if value.dtype != dtype:
            raise TypeError(f"{op}: {name} must be {names([dtype])}, got {value.dtype}")


def names(dtypes: Iterable[torch.dtype]) -> str:
    """The dtypes as they stand in a message."""
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def shape(op: str, name: str, value: Tensor, *sizes: int | None) -> None:
    """Check that `value` is a tensor of these sizes. None stands for any size."""
    a_tensor(op, name, value)
    if value.ndim == len(sizes):
        for size, found in zip(sizes, value.shape, strict=True):
            if size is not None and size != found:
                break
        else:
            return
    expected = ", ".join("*" if size is None else str(size) for size in sizes)
    raise ValueError(f"{op}: {name} must have shape [{expected}], got {list(value.shape)}")


def together(op: str, **tensors: Tensor | None) -> None:
    """Check that all tensors are on one device. None stands for no tensor."""
    place = None
    for name, value in tensors.items():
        if value is None:
            continue
        a_tensor(op, name, value)
        if place is None:
            place = value.device
        elif value.device != place:
            given = {name: value.device for name, value in tensors.items() if value is not None}
            found = ", ".join(f"{name} on {place}" for name, place in given.items())
            raise ValueError(f"{op}: expected tensors on one device, got {found}")


def label_type(op: str, name: str, value: Tensor, batch: int) -> None:
    """Check that `value` is int64 [batch]."""
    shape(op, name, value, batch)
    tensor(op, torch.int64, **{name: value})


def label_values(op: str, name: str, value: Tensor | None, classes: int) -> None:
    """Check that the values are in 0..classes-1, where they can be looked at. None stands for no tensor."""
    if value is None or not visible(value) or not value.shape[0]:
        return
    if not 0 <= int(value.min()) <= int(value.max()) < classes:
        raise ValueError(
            f"{op}: {name} must lie in 0..{classes - 1}, got {int(value.min())}..{int(value.max())}"
        )


def visible(value: Tensor) -> bool:
    """True if a check may look at the values.

    This is so only on the CPU, where nobody has to wait for them, and only if the tensor is plain: a graph
    that is traced, a fake tensor and a batch of `torch.func.vmap` have no values to look at.
    """
    return value.device.type == "cpu" and plain((value,))


def choice(op: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    """Check that `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{op}: {name} must be one of {', '.join(choices)}, got {value!r}")
