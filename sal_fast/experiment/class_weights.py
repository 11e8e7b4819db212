"""The weights of the classes, read from a file (`--class-weights FILE`)."""

import csv
import math
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from sal_fast._util.suggest import suggest
from sal_fast.errors import InputError

Word = Literal["none", "balanced"]
WORDS: tuple[Word, ...] = get_args(Word)


def resolved(given: str, classes: Sequence[str]) -> Word | tuple[float, ...]:
    """What `--class-weights` names: a word as it is, or the weights of a file, in the order of `classes`.

    A .toml file has a line `"class" = weight` for each class. Any other file is CSV with lines
    `class,weight`, perhaps under a line that says so.

    Raises InputError for a file that cannot be read, an unknown class, one without a weight, and a weight
    that is not a number of at least 0.
    """
    for word in WORDS:
        if given == word:
            return word
    path = Path(os.path.expanduser(given))
    weights = _read(path)
    where = f"--class-weights {given}"
    for name in weights:
        if name not in classes:
            raise InputError(f"{where}: unknown class {name!r}{suggest(name, classes)}")
    for name in classes:
        if name not in weights:
            raise InputError(f"{where}: no weight for the class {name!r}; add a line for it")
    found = {name: _number(value) for name, value in weights.items()}
    for name, value in found.items():
        if value is None:
            raise InputError(
                f"{where}: the weight of {name!r} is {weights[name]!r}, expected a number of at least 0"
            )
    return tuple(value for name in classes if (value := found[name]) is not None)


def _read(path: Path) -> dict[str, Any]:
    """The lines of a file, as class -> weight."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".toml":
            return tomllib.loads(text)
        lines = [line for line in csv.reader(text.splitlines()) if line]
    except FileNotFoundError:
        raise InputError(
            f"--class-weights: file not found: {path}; expected {' or '.join(WORDS)}, or a .toml or .csv file"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, csv.Error) as error:
        raise InputError(f"--class-weights: {path} cannot be read: {error}") from None
    if lines and [word.strip().lower() for word in lines[0]] == ["class", "weight"]:
        lines = lines[1:]
    found: dict[str, Any] = {}
    for line in lines:
        if len(line) != 2:
            raise InputError(f"--class-weights: {path}: expected lines class,weight, got {','.join(line)!r}")
        name, value = (word.strip() for word in line)
        if name in found:
            raise InputError(f"--class-weights: {path}: class {name!r} stands twice; leave one out")
        found[name] = value
    return found


def _number(value: object) -> float | None:
    """The value as a finite number of at least 0; None if it is none."""
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        return None
    return number if number >= 0 and math.isfinite(number) and not isinstance(value, bool) else None
