"""sal-fast select."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from sal_fast import plugins, query
from sal_fast._util.files import write_bytes
from sal_fast._util.memory import free_memory
from sal_fast.cli import arrays, parsing
from sal_fast.errors import InputError
from sal_fast.experiment.record import query_csv


def main(arguments: list[str]) -> int:
    return parsing.one_line(_select, arguments, "sal-fast select")


def _select(
    *,
    criterion: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(plugins.names("criterion")) + "}")],
    k: int,
    features: Path | None = None,
    logits: Path | None = None,
    labelled: Path | None = None,
    ids: Path | None = None,
    seed: int = 0,
    device: str = "auto",
    out: Path = Path("query.csv"),
) -> int:
    """Choose the images to label next, from a model's features and logits over a pool.

    `sal-fast score` makes the files, and any other program can. They are mapped, so features may be larger
    than the memory; badge and core-set then sort their rows in a temporary file. The query is written to a
    CSV file of id, score and rank, with the image to be labelled first at the top. It does not depend on the
    order of the rows: images that the criterion cannot tell apart are chosen by a hash of --seed and the id.

    Args:
        criterion: a name, or file.py:function for a criterion of your own. badge needs features and logits,
            core-set needs features, random needs any file, and the others need logits.
        k: how many images to ask for.
        features: penultimate features, one row for each image: .npy or .safetensors.
        logits: one row for each image: .npy or .safetensors.
        labelled: what is labelled already and not asked for. This is a text file of ids (of row numbers
            without --ids), or a .npy file of row numbers. It may also be the features of labelled images
            that are not in the pool (.npy, .safetensors), which spares a copy of the pool.
        ids: a text file with one line for each image; without it an image's id is the number of its row.
        seed: 0 to 2^63 - 1; the same seed gives the same query.
        device: where badge and core-set compute: auto (a GPU if there is one), cpu, cuda, cuda:1, ...; what
            does not fit there is streamed.
        out: the CSV file.
    """
    _check(k, seed)
    needs = query.needs_of(criterion)
    place = parsing.device(device)
    files = {"features": features, "logits": logits}
    for name in sorted(needs & files.keys()):
        if files[name] is None:
            raise InputError(f"criterion {criterion!r} needs --{name} FILE (.npy or .safetensors)")
    given = {name: arrays.matrix(name, _expanded(path)) for name, path in files.items() if path is not None}
    names = None if ids is None else arrays.lines("ids", _expanded(ids))
    sizes = {f"--{name}": len(value) for name, value in given.items()}
    sizes |= {} if names is None else {"--ids": len(names)}
    if len(set(sizes.values())) != 1:
        found = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise InputError(
            f"expected files of as many rows, got {found}"
            if sizes
            else "nothing to select from: give --features, --logits or --ids"
        )
    size = next(iter(sizes.values()))
    known = [] if labelled is None else arrays.labelled(_expanded(labelled), names, size)
    names = list(map(str, range(size))) if names is None else names
    pool = _pool(needs, given, known, names, seed)
    try:
        result = query.select(criterion, pool.replace(device=place), k, seed=seed)
    except (ValueError, MemoryError) as error:
        raise InputError(str(error)) from None
    chosen = [pool.ids[at] for at in result.positions.tolist()]
    write_bytes(_expanded(out), query_csv(chosen, result.scores.tolist()))
    print(f"{out}: {len(chosen)} of {len(pool)} images by {criterion}")
    return 0


def _check(k: int, seed: int) -> None:
    if k < 1:
        raise InputError(f"--k {k}: expected at least 1")
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed {seed}: expected 0 to 2^63 - 1")


def _pool(
    needs: frozenset[str], given: dict[str, Tensor], known: Tensor | list[int], names: list[str], seed: int
) -> query.Pool:
    """The unlabelled rows, with what the criterion reads of them."""
    fields: dict[str, Any] = {name: value for name, value in given.items() if name in needs}
    features = fields.get("features")
    if isinstance(known, Tensor):
        width = known.shape[1]
        if features is not None and width != features.shape[1]:
            raise InputError(f"--labelled has {width} features a row, --features {features.shape[1]}")
        return query.Pool(names, **fields, labelled=query.Labelled(features=known))
    labelled = query.Labelled(
        [names[row] for row in known],
        features=None if features is None else features[torch.tensor(known, dtype=torch.int64)],
    )
    if not known:
        return query.Pool(names, **fields, labelled=labelled)
    copied = sum(value.nbytes for value in fields.values())
    if copied > free_memory(torch.device("cpu")):
        raise InputError(
            f"a pool without its labelled rows is a copy of {copied / 1e9:.1f} GB, more than is free; give "
            f"files of the unlabelled images alone, and the labelled ones' features to --labelled"
        )
    taken = set(known)
    left = torch.tensor([row for row in range(len(names)) if row not in taken], dtype=torch.int64)
    # sorted here, so that `query.select` makes no second copy
    rest = left[query.key_order([names[row] for row in left.tolist()], seed)]
    ids = [names[row] for row in rest.tolist()]
    return query.Pool(ids, **{name: value[rest] for name, value in fields.items()}, labelled=labelled)


def _expanded(path: Path) -> Path:
    return Path(os.path.expanduser(path))
