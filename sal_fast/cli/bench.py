"""sal-fast bench."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table as Sheet

from sal_fast.cli import parsing
from sal_fast.errors import InputError
from sal_fast.whole_files import write_json


def main(arguments: list[str]) -> int:
    if arguments[:1] in ([], ["-h"], ["--help"]):
        print("usage: sal-fast bench data [OPTIONS]\n\nHow fast images and masks become batches here.")
        return 0 if arguments else 2
    if arguments[0] != "data":
        raise InputError(f"unknown command 'bench {arguments[0]}' (expected bench data)")
    return parsing.one_line(_data, arguments[1:], "sal-fast bench data")


def _data(
    *,
    images: int = 512,
    rounds: int = 5,
    workers: int = 2,
    device: str = "auto",
    folder: Path | None = None,
    out: Path | None = None,
) -> int:
    """Decoding, augmenting and delivering, apart and together, against a DataLoader with Pillow and OpenCV.

    JPEGs of 500 x 375 with PNG masks, made on the spot, to 224 x 224 with crop and flip.

    Args:
        images: how many.
        rounds: in each of which every variant runs once.
        workers: processes of the DataLoaders.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, ...
        folder: where to make the files; a temporary one if not given.
        out: a JSON file for the result.
    """
    for name, value in (("images", images), ("rounds", rounds)):
        if value < 1:
            raise InputError(f"--{name} {value}: expected at least 1")
    if out is not None and (out := out.expanduser()).is_dir():
        raise InputError(f"--out {out}: a folder; expected the name of a JSON file")
    from sal_fast.bench import data

    with tempfile.TemporaryDirectory(dir=folder) as place:
        document = data.measure(Path(place), parsing.device(device), images, rounds, workers)
    ours = {result["variant"]: result["images_per_second"] for result in document["results"]}
    sheet = Sheet("", "images a second", "10 to 90 %", "ms an image", title=f"data on {document['device']}")
    for result in document["results"]:
        spread = f"{result['p10']:,.0f} to {result['p90']:,.0f}"
        rate, each = f"{result['images_per_second']:,.0f}", f"{result['ms_per_image']:.3f}"
        sheet.add_row(result["variant"], rate, spread, each)
    console = Console()
    console.print(sheet, markup=False)
    first = ours["first epoch, standard"]
    for name, rate in ours.items():
        if name.startswith("DataLoader"):
            print(f"first epoch, standard / {name}: {first / rate:.2f}")
    for kind in ("none", "standard"):
        later = ours[f"augment {kind}"] / ours[f"first epoch, {kind}"]
        print(f"a later epoch from the store / the first, {kind}: {later:.1f}")
    for name in document:
        if name.startswith(("idle", "train")):
            print(f"{name}: {document[name]:.3f}")
    if out is not None:
        write_json(out, document)
        print(out)
    return 0
