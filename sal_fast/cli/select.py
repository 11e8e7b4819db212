"""sal-fast select."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from sal_fast import query
from sal_fast._util.files import write_bytes
from sal_fast._util.memory import free_memory
from sal_fast.cli import arrays, parsing
from sal_fast.errors import InputError
from sal_fast.experiment.record import query_csv


def main(arguments: list[str]) -> int:
    return parsing.one_line(_select, arguments, "sal-fast select")


def _select(
    *,
    criterion: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(query.CRITERIA) + "}")],
    k: int,
    features: Path | None = None,
    logits: Path | None = None,
    labelled: Path | None = None,
    ids: Path | None = None,
    seed: int = 0,
    device: str = "auto",
    out: Path = Path("query.csv"),
) -> int:
    """Which images to label next, from a model's features and logits over a pool.

    `sal-fast score` makes the files, or any other program. They are mapped: features may be larger than the
    memory. Writes a CSV file of id, score and rank, the first to be labelled first.

    Args:
        criterion: badge needs features and logits, core-set features, random any file, the others logits.
        k: how many images to ask for.
        features: penultimate features, a row an image: .npy or .safetensors.
        logits: a row an image: .npy or .safetensors.
        labelled: what is labelled already and not asked for: a text file of ids (row numbers without --ids),
            a .npy file of row numbers; or the features of labelled images that are not in the pool (.npy,
            .safetensors), which spares a copy of the pool.
        ids: a text file, a line an image; without it the id is the row's number.
        seed: 0 to 2^63 - 1; the same seed gives the same query.
        device: where badge and core-set compute: auto (a GPU if there is one), cpu, cuda, cuda:1, ...; what
            does not fit there is streamed.
        out: the CSV file.
    """
    _check(criterion, k, seed)
    place = parsing.device(device)
    files = {"features": features, "logits": logits}
    for name in sorted(query.CRITERIA[criterion].NEEDS & files.keys()):
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
    rest, pool = _pool(criterion, given, known, size)
    try:
        result = query.select(criterion, dataclasses.replace(pool, device=place), k, seed=seed)
    except (ValueError, MemoryError) as error:
        raise InputError(str(error)) from None
    rows = (result.positions if rest is None else rest[result.positions]).tolist()
    chosen = [str(row) for row in rows] if names is None else [names[row] for row in rows]
    write_bytes(_expanded(out), query_csv(chosen, result.scores.tolist()))
    print(f"{out}: {len(chosen)} of {pool.size} images by {criterion}")
    return 0


def _check(criterion: str, k: int, seed: int) -> None:
    if criterion not in query.CRITERIA:
        raise InputError(f"unknown criterion {criterion!r} (expected one of {', '.join(query.CRITERIA)})")
    if k < 1:
        raise InputError(f"--k {k}: expected at least 1")
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed {seed}: expected 0 to 2^63 - 1")


def _pool(
    criterion: str, given: dict[str, Tensor], known: Tensor | list[int], size: int
) -> tuple[Tensor | None, query.Pool]:
    """The unlabelled rows (None: all), and what the criterion reads of them."""
    needs = query.CRITERIA[criterion].NEEDS
    features, logits = (given.get(name) if name in needs else None for name in ("features", "logits"))
    width = given["features"].shape[1] if "features" in given else 0
    if isinstance(known, Tensor):
        if features is not None and known.shape[1] != width:
            raise InputError(f"--labelled has {known.shape[1]} features a row, --features {width}")
        return None, query.Pool(size, logits, features, known)
    centers = None if features is None else features[torch.tensor(known, dtype=torch.int64)]
    if not known:
        return None, query.Pool(size, logits, features, centers)
    copied = sum(value.nbytes for value in (features, logits) if value is not None)
    if copied > free_memory(torch.device("cpu")):
        raise InputError(
            f"a pool without its labelled rows is a copy of {copied / 1e9:.1f} GB, more than is free; give "
            f"files of the unlabelled images alone, and the labelled ones' features to --labelled"
        )
    keep = torch.ones(size, dtype=torch.bool)
    keep[torch.tensor(known)] = False
    rest = keep.nonzero()[:, 0]
    features, logits = (None if value is None else value[rest] for value in (features, logits))
    return rest, query.Pool(len(rest), logits, features, centers)


def _expanded(path: Path) -> Path:
    return Path(os.path.expanduser(path))
