"""The two doors of this package: from what `--data` names to a table, and from a table to a store."""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sal_fast import plugins
from sal_fast._util.memory import free_memory
from sal_fast._util.suggest import nearest
from sal_fast.data import prepared, readers, store
from sal_fast.data.meaning import Rule
from sal_fast.data.readers import HINTS, Options
from sal_fast.data.reading import StoreOptions
from sal_fast.data.table import Table
from sal_fast.errors import InputError

SHARE = 0.5  # `auto` gives images at most this share of the free memory, so that a network fits beside them

log = logging.getLogger(__name__)


def load_table(
    data: str,
    root: str | Path | None = None,
    rule: Rule | None = None,
    options: Options | None = None,
) -> Table:
    """Read the samples that `--data` names.

    Args:
        data: a plug-in (`builtin`, one of the paper's data sets `cub200 flowers102 imagenet-s ham10000
            food201`, or `file.py:function`), a prepared folder, or a file or folder in one of the formats of
            `docs/data.md`. A plug-in's name is preferred to a folder with the same name: `./cub200` is the
            folder.
        root: the folder that a plug-in reads; the paper's data sets need it.
        rule: what the user says about the mask files.
        options: the format, and the names of columns, where the files do not say them.

    Raises:
        InputError: it says what was expected.
    """
    table = _table(data, root, options or Options())
    return table if rule is None else _ruled(table, rule)


def _table(data: str, root: str | Path | None, options: Options) -> Table:
    path, named = Path(os.path.expanduser(data)), plugins.names("data")
    if data in named or (plugins.is_reference(data) and not path.exists()):
        table = plugins.load("data", data)(None if root is None else Path(os.path.expanduser(root)))
        if not isinstance(table, Table):
            raise InputError(
                f"--data {data}: it gave a {type(table).__name__}, expected a sal_fast.data.Table"
            )
        return table
    if root is not None:
        raise InputError(f"--root goes with --data {', '.join(named)}; --data {data} takes none")
    if not path.exists():
        close = nearest(data, named)
        kind = "file" if path.suffix.lower() in HINTS else "folder"
        raise InputError(f"data {kind} not found: {path}" + (f"; did you mean {close!r}?" if close else ""))
    return prepared.read(path) if prepared.is_prepared(path) else readers.read(path, options)


def _ruled(table: Table, rule: Rule) -> Table:
    """The table whose masks are read by `rule`. Raises InputError if they are read in another way already."""
    if isinstance(table, prepared.PreparedTable):
        if str(rule) not in ("", table.said):
            raise InputError(
                f"{table.folder} was prepared with {table.said or 'no rule for its masks'}, and {rule} is "
                f"asked; prepare another folder, or leave these options out"
            )
        return table
    if table.rule.own is not None and replace(rule, white=None) != Rule():
        raise InputError(f"{table.name} has a rule of its own for its masks; leave out {rule}")
    return replace(table, rule=replace(rule, own=table.rule.own))


def load_originals(
    data: str,
    root: str | Path | None = None,
    rule: Rule | None = None,
    options: Options | None = None,
) -> Table:
    """`load_table`, but InputError for a prepared folder, whose files were all looked through already."""
    table = load_table(data, root, rule, options)
    if isinstance(table, prepared.PreparedTable):
        raise InputError(f"--data {data} is prepared already; --data names the originals")
    return table


def open_store(samples: Table, options: StoreOptions) -> store.Store:
    """Make the store of a table with the options that `plan_store` gave.

    If the device's memory runs out all the same, images are streamed, which is logged as a warning. Raises
    InputError that names the files that cannot be used.
    """
    build: Any = prepared.build if isinstance(samples, prepared.PreparedTable) else store.build
    try:
        return build(samples, options)
    except torch.OutOfMemoryError:
        if options.keep == "stream":
            raise
    torch.cuda.empty_cache()
    log.warning("%s has too little memory left for all images: they are streamed", options.decoder.device)
    return build(samples, replace(options, keep="stream"))


def plan_store(samples: Table, options: StoreOptions) -> StoreOptions:
    """The options with `auto` decided; logs where images will be kept and how much memory they take.

    Raises InputError if what is kept does not fit in the free memory.
    """
    size, device, keep = options.stored_size, options.decoder.device, options.keep
    copied = isinstance(samples, prepared.PreparedTable) and samples.recipe.copy
    images = len(samples) * 3 * size**2
    maps = len(samples) * options.image_size * -(-options.image_size // 32) * 4  # if all are binary
    free = free_memory(device)
    if keep == "auto":
        keep = "resident" if images + maps <= SHARE * free else "stream"
    needed = maps + (images if keep == "resident" and not (copied and device.type == "cpu") else 0)
    what = f"{samples.name}: {len(samples)} images at {size} px"
    if needed > free:
        advice = "--store stream" if keep == "resident" else "a lower --image-size, or a larger machine"
        raise InputError(
            f"{what}, {keep}, need {needed / 1e9:,.1f} GB on {device}, {free / 1e9:.1f} GB are free; "
            f"use {advice}"
        )
    if copied:
        where = f"decoded before ({images / 1e9:.2f} GB)"
    elif keep == "resident":
        where = f"kept on {device} ({(images + maps) / 1e9:.2f} GB of {free / 1e9:.1f} free)"
    else:
        where = f"streamed each epoch (kept, they would take {images / 1e9:.2f} GB of {free / 1e9:.1f} free)"
    log.info("%s, %s; decoder %s", what, where, options.decoder.name)
    return replace(options, keep=keep)
