"""A user's matrices and lists. Matrices are mapped, not read, and nothing is ever unpickled."""

import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sal_fast.errors import InputError


def matrix(option: str, path: Path) -> Tensor:
    """A floating matrix [N, d] from a .npy or .safetensors file.

    A .safetensors file may hold several tensors; the one with the option's name is taken, or the only one.
    """
    values = _mapped(option, path)
    if values.ndim != 2 or not values.is_floating_point():
        raise InputError(
            f"--{option} {path}: expected a matrix of floating numbers, one row an image, got "
            f"{str(values.dtype).removeprefix('torch.')} {list(values.shape)}"
        )
    return values


def lines(option: str, path: Path) -> list[str]:
    """The lines of a text file."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"--{option}: file not found: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--{option} {path}: expected a text file of one id a line: {error}") from None


def labelled(path: Path, ids: list[str] | None, size: int) -> Tensor | list[int]:
    """What `--labelled` holds: features of labelled images [L, d], or the labelled rows of the pool, sorted.

    `ids` are the ids of the pool's `size` rows; None if they have none.
    """
    if path.suffix in (".npy", ".safetensors"):
        values = _mapped("labelled", path)
        if values.ndim != 1 or values.is_floating_point():
            return matrix("labelled", path)
        rows = [int(value) for value in values.tolist()]
    elif ids is None:
        try:
            rows = [int(line) for line in lines("labelled", path)]
        except ValueError as error:
            raise InputError(f"--labelled {path}: expected row numbers ({error}), or give --ids") from None
    else:
        row_of = {name: row for row, name in enumerate(ids)}
        try:
            rows = [row_of[name] for name in lines("labelled", path)]
        except KeyError as error:
            raise InputError(f"--labelled {path}: id {error} is not in --ids") from None
    outside = [row for row in rows if not 0 <= row < size]
    if outside:
        raise InputError(f"--labelled {path}: row {outside[0]}; expected 0 to {size - 1}")
    return sorted(set(rows))


def _mapped(option: str, path: Path) -> Tensor:
    if not path.is_file():
        raise InputError(f"--{option}: file not found: {path}")
    try:
        if path.suffix == ".npy":
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", UserWarning
                )  # the array is read-only, and nobody writes to it
                return torch.from_numpy(np.load(path, mmap_mode="r", allow_pickle=False))
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                names = list(file.keys())
                if option not in names and len(names) != 1:
                    raise InputError(
                        f"--{option} {path}: expected a tensor of the name {option!r}, or only one; "
                        f"it has {', '.join(names) or 'none'}"
                    )
                tensor: Tensor = file.get_tensor(option if option in names else names[0])
                return tensor
    except (ValueError, TypeError, OSError, EOFError, SafetensorError) as error:
        raise InputError(f"--{option} {path} cannot be read: {str(error).splitlines()[0]}") from None
    raise InputError(f"--{option} {path}: expected a .npy or .safetensors file")
