"""Go through many images with a model, block by block, so that a kill costs no more than one block."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
import torch

from sal_fast._util import progress
from sal_fast._util.files import claim, stamp, whole_file
from sal_fast._util.locks import hold
from sal_fast._util.words import DecoderName
from sal_fast.data import StoreOptions, Table, decode, meaning, reading
from sal_fast.data.reading import Part
from sal_fast.trained.model import SalModel

BLOCKS = "blocks"  # the folder of the finished blocks' rows
Work = Callable[[Part], pl.DataFrame]
log = logging.getLogger(__name__)


def go_through(
    model: SalModel,
    images: Table,
    file: Path,
    work: Work,
    *,
    identity: Mapping[str, Any],
    size: int,
    holds: str,
    decoder: DecoderName = "auto",
) -> None:
    """Do `work` with all images, in parts of up to 64, and write the rows of all parts to `file`.

    The rows of each finished block are kept beside `file`. The same call goes on after them, and does nothing
    if the file is there.

    Args:
        model: it says how large images are decoded, and on which device.
        images: the images.
        file: a .csv or .parquet file in a folder of its own. `<its name>.json` says what it is of.
        work: takes some decoded images, and returns their rows.
        identity: what the rows depend on, beside the images and the model.
        size: images in a block.
        holds: what messages call the results.
        decoder: what decodes.

    Raises InputError if the folder holds results of anything else.
    """
    out, said = file.parent, file.with_suffix(".json")
    own = {
        "images": _digest(images),
        "white": images.rule.white,
        "model": _content_of(model),
        **identity,
    }
    blocks = [range(at, min(at + size, len(images))) for at in range(0, len(images), size)]
    with hold(out, said.name):
        claim(said, own, holds)
        if file.is_file():
            log.info("%s is finished; nothing to do", file)
            return
        todo = {at: rows for at, rows in enumerate(blocks) if not _kept(out, at).is_file()}
        with (
            closing(decode.choose(decoder, model.device)) as decoding,
            progress.bar(file.stem, sum(map(len, todo.values()))) as advance,
            torch.no_grad(),
        ):
            options = StoreOptions(model.image_size, model.metadata["stored_size"], decoding)
            parts, deep = reading.ahead(_parts(images, todo, options), depth=1), list[int]()
            for at, its in groupby(parts, key=lambda one: one[0]):
                rows = []
                for _, part in its:
                    for error in part.broken.values():
                        log.warning("%s; it is passed over", error)
                    deep += part.deep.values()
                    rows.append(work(part))
                    advance(len(part.rows))
                _write(pl.concat(rows), _kept(out, at))
        for note in meaning.of_deep_images(deep, images.rule):
            log.warning("%s", note)
        _write(pl.concat([pl.read_parquet(_kept(out, at), glob=False) for at in range(len(blocks))]), file)
        shutil.rmtree(out / BLOCKS, ignore_errors=True)


def _write(rows: pl.DataFrame, file: Path) -> None:
    """Write rows to a .csv or .parquet file, whole or not at all."""
    with whole_file(file) as aside:
        if file.suffix == ".csv":
            rows.write_csv(aside)
        else:
            rows.write_parquet(aside)


def _parts(
    images: Table, blocks: Mapping[int, Sequence[int]], options: StoreOptions
) -> Iterator[tuple[int, Part]]:
    for at, rows in blocks.items():
        for part in reading.parts(images, rows, options):
            yield at, part


def _kept(out: Path, at: int) -> Path:
    return out / BLOCKS / f"{at:06d}.parquet"


def _digest(images: Table) -> str:
    """SHA-256 of the ids of the images, their paths, sizes and times of change."""
    lines = (f"{name}\t{stamp(path)}\n" for name, path in zip(images.ids, images.images, strict=True))
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _content_of(model: SalModel) -> str:
    """SHA-256 of the model's weights, and of what is known of it."""
    digest = hashlib.sha256(json.dumps(model.metadata, sort_keys=True).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
