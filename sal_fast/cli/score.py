"""sal-fast score."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from sal_fast._util.files import read_json, write_bytes, write_json
from sal_fast._util.progress import duration
from sal_fast.cli import parsing
from sal_fast.data import Table, decode, formats, load_table, store
from sal_fast.errors import InputError
from sal_fast.models import Classifier, build, network, weights
from sal_fast.train import score

BLOCK = 2000  # images decoded, scored and flushed together: what a kill may cost


def main(arguments: list[str]) -> int:
    return parsing.one_line(_score, arguments, "sal-fast score")


def _score(
    *,
    data: str,
    arch: str,
    weights: Path,
    out: Path,
    image_size: int = 224,
    output_stride: int = 32,
    device: str = "auto",
    decoder: decode.Name = "auto",
    root: str | None = None,
) -> int:
    """Run a model over images: ids.txt, logits.npy and features.npy (penultimate), for `sal-fast select`.

    Written block by block: the same command continues where it was interrupted.

    Args:
        data: a folder of images at any depth, a folder with images/<class>/, a .csv or .parquet manifest, or
            builtin.
        arch: the network.
        weights: its weights, a .safetensors, .pth or .pt file; the head says how many classes there are.
        out: the folder to write to.
        image_size: pixels a side that the network sees.
        output_stride: as the network was trained with.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, ...
        decoder: dali, torch, pillow, or auto (dali on a GPU where it is installed, else torch).
        root: the folder of the official archives, where data names one of the paper's sets.
    """
    if image_size < 1:
        raise InputError(f"--image-size {image_size}: expected at least 1")
    out = Path(os.path.expanduser(out))
    images = _images(data, root)
    path = Path(os.path.expanduser(weights))
    model = _model(arch, path, output_stride)
    identity = {
        "ids": hashlib.sha256("\n".join(images.ids).encode()).hexdigest(),
        "arch": arch,
        "weights": hashlib.sha256(path.read_bytes()).hexdigest(),
        "image_size": image_size,
        "output_stride": output_stride,
    }
    widths = {"logits": model.head.out_features, "features": model.head.in_features}
    done = _resume(out, identity)
    if done == len(images):
        print(f"{out} is finished; nothing to do")
        return 0
    place = parsing.device(device)
    model.to(place)
    files = {
        name: np.lib.format.open_memmap(
            out / f"{name}.npy.part",
            mode="r+" if done else "w+",
            dtype=None if done else np.float32,
            shape=None if done else (len(images), width),
        )
        for name, width in widths.items()
    }
    decoding = decode.choose(decoder, place)
    print(f"{images.name}: {len(images)} images; decoder {decoding.name}", file=sys.stderr)
    begin, first = time.perf_counter(), done
    while done < len(images):
        rows = slice(done, min(done + BLOCK, len(images)))
        part = dataclasses.replace(
            images,
            ids=images.ids[rows],
            images=images.images[rows],
            labels=images.labels[rows],
            masks=[None] * (rows.stop - done),  # not looked at
            split=[""] * (rows.stop - done),
        )
        samples = store.build(part, store.StoreOptions(image_size, image_size, decoding))
        values = [x for x in score(model, samples, torch.arange(len(part), device=place)) if x is not None]
        for name, value in zip(widths, values, strict=True):
            if not bool(value.isfinite().all()):
                raise InputError(f"the model's {name} are not finite numbers; check --weights {weights}")
            files[name][rows] = value.cpu().numpy()
            files[name].flush()
        done = rows.stop
        if done < len(images):
            write_json(out / "score.json", {**identity, "done": done})
        left = (time.perf_counter() - begin) / (done - first) * (len(images) - done)
        print(f"scored {done} of {len(images)}, about {duration(left)} left", file=sys.stderr)
    write_bytes(out / "ids.txt", "".join(f"{name}\n" for name in images.ids).encode())
    for name in widths:
        os.replace(out / f"{name}.npy.part", out / f"{name}.npy")
    write_json(out / "score.json", {**identity, "done": done})
    print(f"{out}: {done} images, {widths['logits']} classes, {widths['features']} features")
    return 0


def _images(data: str, root: str | None) -> Table:
    path = Path(os.path.expanduser(data))
    plain = path.is_dir() and not (path / "images").is_dir()
    images = formats.read_images(path) if plain and root is None else load_table(data, root)
    broken = [name for name in images.ids if len(name.splitlines()) != 1]
    if broken:
        raise InputError(
            f"{images.name}: id {broken[0]!r} does not fit on a line of ids.txt; rename the file"
        )
    return images


def _model(arch: str, path: Path, output_stride: int) -> Classifier:
    """The network with the head that the weights have."""
    if not weights.is_file(str(path)):
        raise InputError(f"--weights {path}: expected a .safetensors, .pth or .pt file")
    state = weights.read(path)
    head = f"{network(arch).head}.bias"
    if head not in state:
        raise InputError(f"--weights {path}: no head in it ({head}), so no logits")
    return build(arch, len(state[head]), weights=str(path), output_stride=output_stride)


def _resume(out: Path, identity: dict[str, object]) -> int:
    """How many images are scored already; InputError where the folder holds anything else."""
    there = out / "score.json"
    if there.exists():
        kept = read_json(there)
        differing = [name for name in identity if kept.get(name) != identity[name]]
        if differing:
            raise InputError(f"{out} holds scores of other {differing[0]}; choose another --out")
        return int(kept["done"])
    out.mkdir(parents=True, exist_ok=True)
    foreign = sorted(item.name for item in out.iterdir() if not item.name.endswith(".part"))
    if foreign:
        raise InputError(f"{out} holds other files ({foreign[0]}, ...); choose a new folder with --out")
    return 0
