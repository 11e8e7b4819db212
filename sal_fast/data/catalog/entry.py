"""An entry of the catalog: the properties of a data set, and the steps that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sal_fast import seeds
from sal_fast.data import splits
from sal_fast.data.catalog import archives
from sal_fast.data.meaning import Foreground
from sal_fast.data.table import Sample, Table, make_table
from sal_fast.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One data set of the paper.

    key: its name for `--data`.
    counts: the numbers of train, val and test images and of classes in the paper's Table 1.
    layout: one line that says what is expected in the folder.
    archives: the names of the official archives.
    read: gives the samples in a folder; their files need not exist.
    foreground: which pixels of a mask file are foreground (see `Table`).
    named_by: the list that names the files. If it is "", an image and its mask name each other.
    val_share: how much of each class's training samples becomes val.
    """

    key: str
    counts: Mapping[str, int]
    layout: str
    archives: tuple[str, ...]
    read: Callable[[Entry, Path], list[Sample]]
    foreground: Foreground
    named_by: str = ""
    val_share: float = 0.0

    def load(self, root: Path | None) -> Table:
        """Read the data set in the folder `root`.

        If files are missing and official archives lie there, these are unpacked first. Raises InputError that
        says what was expected.
        """
        if root is None:
            raise InputError(
                f"--data {self.key} needs --root DIR, the folder with {self.layout}, or with the official "
                f"archives {', '.join(self.archives)}"
            )
        if not root.is_dir():
            raise InputError(f"--root {root}: no such folder; expected {self.layout} in it")
        try:
            return self._table(root)
        except InputError:
            if not archives.unpack(root, self.archives):
                raise
        return self._table(root)

    def _table(self, root: Path) -> Table:
        table = make_table(self.key, self.read(self, root), self.foreground)
        self._refuse_missing(table)
        return splits.with_val(table, self.val_share, self.stream())

    def stream(self) -> np.random.Generator:
        """The random stream of the splits: the catalog's own, so that they do not depend on a run's seed."""
        return seeds.stream(0, f"catalog-{self.key}")

    def require(self, root: Path, name: str, levels: int = 2) -> Path:
        """`archives.find`, or an InputError that says what was expected."""
        found = archives.find(root, name, levels)
        if found is None:
            raise InputError(f"{root}: {name} not found; expected {self.layout}")
        return found

    def _refuse_missing(self, table: Table) -> None:
        """Raise InputError if files do not exist: it names the first one and counts the others."""
        missing = [
            (path, self.named_by or other)
            for pair in zip(table.images, table.masks, strict=True)
            for path, other in (pair, pair[::-1])
            if isinstance(path, Path) and not path.is_file()
        ]
        if missing:
            (path, source), more = missing[0], len(missing) - 1
            others = f" (and {more:,} more)" if more else ""
            raise InputError(
                f"{self.key}: {path} is missing, {source} names it{others}; is the archive wholly unpacked?"
            )


def grey(pixels: np.ndarray) -> np.ndarray:
    """The pixels [H, W] of a grey file that was stored with colours (their largest) or alpha (left out)."""
    if pixels.ndim == 2:
        return pixels
    return pixels[..., 0] if pixels.shape[-1] < 3 else pixels[..., :3].max(axis=-1)
