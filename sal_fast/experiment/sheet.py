"""A sheet of the pictures that a round asked for, each beside the map that a machine drew of it."""

from __future__ import annotations

from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sal_fast import ops
from sal_fast.data import decode, load_table, reading
from sal_fast.data.files import Unreadable
from sal_fast.data.meaning import Rule
from sal_fast.data.readers import Options
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.experiment.loading import Run
from sal_fast.experiment.record import RunFolder

SIDE = 112  # pixels a side of a picture
GAP = 4  # white pixels between two images
WIDE = 12  # pictures in a row
MOST = 36  # images of a sheet

Pixels = NDArray[np.uint8]


class Sheet(NamedTuple):
    """The first images of a query, by rank.

    ids: the images. pixels: uint8 [H, W, 3]. maps: True if a map stands to the right of each image.
    """

    ids: list[str]
    pixels: Pixels
    maps: bool


def of_query(run: Run, round_index: int, most: int = MOST) -> Sheet | None:
    """The sheet of the query that was made after a round; None if there was none.

    Raises InputError if the images are no longer where the run found them, or a map is damaged.
    """
    folder = RunFolder(run.path).round(round_index)
    if not (folder / "query.csv").exists():
        return None
    ids = RunFolder(run.path).query(round_index)[:most]
    images = _pictures(run.config, ids)
    drawn = (folder / "maps").is_dir()
    cells = [[image] for image in images]
    if drawn:
        maps = torch.stack([_map(folder / "maps" / f"{name}.png") for name in ids])
        shown = ops.overlay(torch.from_numpy(images), maps, normalize=False).numpy()
        cells = [[image, one] for image, one in zip(images, shown, strict=True)]
    return Sheet(ids, _laid_out(cells), drawn)


def _laid_out(cells: list[list[Pixels]]) -> Pixels:
    """Rows of cells on white; the pictures of one cell touch each other."""
    blocks = [np.concatenate(cell, axis=1) for cell in cells]
    across = min(len(blocks), WIDE // len(cells[0]))
    down, width = -(-len(blocks) // across), blocks[0].shape[1] + GAP
    page = np.full((down * (SIDE + GAP), across * width, 3), 255, dtype=np.uint8)
    for i, block in enumerate(blocks):
        y, x = i // across * (SIDE + GAP), i % across * width
        page[y : y + SIDE, x : x + width - GAP] = block
    return page


def _map(path: Path) -> torch.Tensor:
    """A map that a machine drew, float32 [SIDE, SIDE] in [0, 1]."""
    try:
        with Image.open(path) as image:
            small = image.convert("L").resize((SIDE, SIDE))
    except OSError as error:
        raise InputError(f"{path}: a map of this run cannot be read ({error}); restore it") from None
    return torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)


def _pictures(config: Config, ids: list[str]) -> Pixels:
    """The images as a network sees them, squared: uint8 [n, SIDE, SIDE, 3]."""
    places, white = _places(config.data, config.root, config.its_rule, config.its_format)
    if not places.keys() >= set(ids):  # images may have come into the data since they were read
        _places.cache_clear()
        places, white = _places(config.data, config.root, config.its_rule, config.its_format)
    gone = [name for name in ids if name not in places]
    if gone:
        raise InputError(f"{config.data}: image {gone[0]!r}, which the run asked for, is gone; restore it")
    with closing(decode.choose("pillow", torch.device("cpu"))) as decoder:
        try:
            pixels: Pixels = reading.pictures([places[name] for name in ids], SIDE, decoder, white).numpy()
        except Unreadable as error:
            raise InputError(str(error)) from None
    return pixels


@lru_cache(maxsize=4)
def _places(
    data: str, root: str | None, rule: Rule, options: Options
) -> tuple[dict[str, Path], float | None]:
    """The image files of a data set by id, and what is white in them. The arguments are `load_table`'s."""
    table = load_table(data, root, rule, options)
    return dict(zip(table.ids, table.images, strict=True)), table.rule.white
