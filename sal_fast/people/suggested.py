"""The maps of a model that people begin from, for the most probable classes of each image of a query."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sal_fast._util.files import write_bytes
from sal_fast.errors import InputError

FILE = "suggested.npz"
THRESHOLD = 0.5  # at which a suggestion is cut at first, as in `annotate.generate`


@dataclass(frozen=True)
class Suggested:
    """The model's maps of T classes of each of k images, most probable class first.

    ids: the images. classes: int64 [k, T], numbers of classes. shares: float32 [k, T], their probabilities.
    maps: uint8 [k, T, h, w], each scaled so that its lowest value is 0 and its highest 255; a flat map is 0.
    """

    ids: Sequence[str]
    classes: np.ndarray
    shares: np.ndarray
    maps: np.ndarray

    def write(self, folder: Path) -> None:
        """Write the file into the folder of a query."""
        out = io.BytesIO()
        arrays: dict[str, Any] = {"classes": self.classes, "shares": self.shares, "maps": self.maps}
        np.savez_compressed(out, ids=np.array(self.ids, dtype=np.str_), **arrays)
        write_bytes(folder / FILE, out.getvalue())

    @classmethod
    def read(cls, folder: Path) -> "Suggested | None":
        """Read the file in the folder of a query; None if there is none, because no model was trained yet."""
        path = folder / FILE
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as there:
                return cls(there["ids"].tolist(), there["classes"], there["shares"], there["maps"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path}: the model's maps cannot be read ({error}); remove the file to go on without them"
            ) from None

    def of(self, name: str) -> int | None:
        """The row of an image; None if there are no maps of it."""
        return self.ids.index(name) if name in self.ids else None


def enlarged(small: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a small map, uint8 [h, w], bilinearly to `size` (width, height): float32 [H, W], 0 to 255."""
    large = Image.fromarray(small.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(large)


def mask(small: np.ndarray, size: tuple[int, int], threshold: float = THRESHOLD) -> np.ndarray:
    """Enlarge a small map, uint8 [h, w], bilinearly to `size` (width, height), and cut it.

    Returns uint8 [H, W], 255 where the enlarged map, divided by 255, is above `threshold`, and 0 elsewhere.
    """
    return np.where(enlarged(small, size) > threshold * 255, np.uint8(255), np.uint8(0))
