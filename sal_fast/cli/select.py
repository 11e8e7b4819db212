"""sal-fast select: choose the images to label next from arrays of any origin."""

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from sal_fast import plugins, query
from sal_fast._util.devices import torch_device
from sal_fast._util.files import write_bytes
from sal_fast._util.memory import free_memory
from sal_fast.cli import arrays, parsing
from sal_fast.cli.output import say
from sal_fast.errors import InputError
from sal_fast.experiment.record import query_csv


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choose the images to label next, from a model's features and logits over a pool.

    `sal-fast score` makes the files, and any other program can. They are mapped, so features may be larger
    than the memory; badge and core-set then sort their rows in a temporary file. The query is written to a
    CSV file of id, score and rank, with the image to be labelled first at the top. It does not depend on the
    order of the rows: images that the criterion cannot tell apart are chosen by a hash of --seed and the id.
    """

    criterion: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(plugins.names("criterion")) + "}")]
    """A name, or file.py:function for a criterion of your own. badge needs features and logits, core-set
    needs features, random needs any file, and the others need logits."""
    k: int
    """The number of images to ask for."""
    features: Path | None = None
    """Penultimate features, one row for each image: .npy or .safetensors."""
    logits: Path | None = None
    """Logits, one row for each image: .npy or .safetensors."""
    labelled: Path | None = None
    """Images that are labelled already, and not asked for: a text file of ids (of row numbers without --ids),
    or a .npy file of row numbers. It may also be the features of labelled images that are not in the pool
    (.npy, .safetensors), which spares a copy of the pool."""
    ids: Path | None = None
    """A text file with one line for each image. Without it an image's id is the number of its row."""
    seed: int = 0
    """0 to 2^63 - 1; the same seed gives the same query."""
    device: str = "auto"
    """The device on which badge and core-set compute: auto (a GPU if there is one), cpu, cuda, cuda:1, ...
    Rows that do not fit there are streamed."""
    out: Path = Path("query.csv")
    """The CSV file."""

    def check(self) -> None:
        """Raise InputError for a number that is out of its range."""
        if self.k < 1:
            raise InputError(f"--k {self.k}: expected at least 1")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed}: expected 0 to 2^63 - 1")


def main(arguments: list[str]) -> int:
    options = parsing.one_line(Options, arguments, "sal-fast select")
    options.check()
    needs = query.needs_of(options.criterion)
    place = torch_device(options.device)
    files = {"features": options.features, "logits": options.logits}
    for name in sorted(needs & files.keys()):
        if files[name] is None:
            raise InputError(f"criterion {options.criterion!r} needs --{name} FILE (.npy or .safetensors)")
    given = {name: arrays.matrix(name, path) for name, path in files.items() if path is not None}
    ids = None if options.ids is None else arrays.lines("ids", options.ids)
    size = _size({**given, **({} if ids is None else {"ids": ids})})
    labelled = options.labelled
    known = [] if labelled is None else arrays.labelled(labelled, ids, size)
    pool = _pool(needs, given, known, list(map(str, range(size))) if ids is None else ids, options.seed)
    try:
        result = query.select(options.criterion, pool.replace(device=place), options.k, seed=options.seed)
    except (ValueError, MemoryError) as error:
        raise InputError(str(error)) from None
    chosen = [pool.ids[at] for at in result.positions.tolist()]
    write_bytes(options.out, query_csv(chosen, result.scores.tolist()))
    say(f"{len(chosen)} of {len(pool)} images by {options.criterion}: {options.out}")
    return 0


def _size(files: Mapping[str, Sized]) -> int:
    """The number of rows that all files have. Raises InputError if they differ, or if there is no file."""
    sizes = {f"--{name}": len(rows) for name, rows in files.items()}
    if not sizes:
        raise InputError("nothing to select from: give --features, --logits or --ids")
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise InputError(f"expected files of as many rows, got {found}")
    return next(iter(sizes.values()))


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
        labelled, known = query.Labelled(features=known), []
    else:
        theirs = None if features is None else features[torch.tensor(known, dtype=torch.int64)]
        labelled = query.Labelled([names[row] for row in known], features=theirs)
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
