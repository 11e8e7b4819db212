"""sal-fast score: run a model over images, and keep what `sal-fast select` needs."""

import dataclasses
import hashlib
import logging
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from sal_fast import plugins
from sal_fast._util import progress
from sal_fast._util.devices import torch_device
from sal_fast._util.files import claim, write_bytes, write_json
from sal_fast._util.locks import hold
from sal_fast.cli import parsing
from sal_fast.cli.files import Files, Machine
from sal_fast.cli.output import say
from sal_fast.data import Table, decode, load_table, store
from sal_fast.data.meaning import Rule
from sal_fast.data.readers.plain import read_images
from sal_fast.errors import InputError
from sal_fast.models import Classifier, build, network, weights
from sal_fast.train import score
from sal_fast.trained import metadata
from sal_fast.trained.model import classifier

KEPT = "score.json"  # what the scores are of, and how many images are done
BLOCK = 2000  # images that are decoded, scored and flushed together, so a kill costs no more
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Files, Machine):
    """Run a model over images, and write ids.txt, logits.npy and features.npy (penultimate).

    `sal-fast select` reads these files. They are written block by block, so the same command continues where
    it was interrupted.
    """

    data: str
    """A folder of images at any depth, a folder or file in one of the formats of docs/data.md, or builtin."""
    weights: Path
    """The model: the folder of a run, its folder model, or a .safetensors file that a run wrote; these say
    all else. Or the weights of --arch, a .safetensors, .pth, .pt, .ckpt or .bin file, whose head says how
    many classes there are."""
    out: Path
    """The folder to write to."""
    arch: Annotated[str | None, tyro.conf.arg(metavar="{" + ",".join(plugins.names("network")) + "}")] = None
    """The network, or a plug-in, file.py:function, for weights that no run has written."""
    image_size: int | None = None
    """Pixels a side that the network sees; 224 if the weights do not say it."""
    output_stride: int | None = None
    """The output stride that the network was trained with; 32 if the weights do not say it."""


def main(arguments: list[str]) -> int:
    options = parsing.one_line(Options, arguments, "sal-fast score")
    if options.image_size is not None and options.image_size < 1:
        raise InputError(f"--image-size {options.image_size}: expected at least 1")
    out = options.out
    images = _images(options)
    scored = _scored(options)
    model, images = scored.model, dataclasses.replace(images, rule=Rule(white=scored.white))
    identity = {
        "ids": hashlib.sha256("\n".join(images.ids).encode()).hexdigest(),
        "arch": scored.arch,
        "weights": hashlib.sha256(scored.file.read_bytes()).hexdigest(),
        "image_size": scored.image_size,
        "output_stride": scored.output_stride,
        "white": scored.white,
    }
    with hold(out, KEPT):
        done = int(claim(out / KEPT, identity, "scores").get("done", 0))
        if done == len(images):
            say(f"nothing to do; finished: {out}")
            return 0
        _score(options, images, scored, identity, done)
        write_bytes(out / "ids.txt", "".join(f"{name}\n" for name in images.ids).encode())
        for name in ("logits", "features"):
            os.replace(out / f"{name}.npy.part", out / f"{name}.npy")
        write_json(out / KEPT, {**identity, "done": len(images)})
    classes, features = model.head.out_features, model.head.in_features
    say(f"{len(images)} images, {classes} classes, {features} features: {out}")
    return 0


@dataclasses.dataclass(frozen=True)
class _Scored:
    """A model that scores images, and how it sees them. `file` holds its weights."""

    model: Classifier
    file: Path
    arch: str
    image_size: int
    stored_size: int
    output_stride: int
    white: float | None


def _scored(options: Options) -> _Scored:
    """The model of the options. Raises InputError for options that contradict what its weights say."""
    path = options.weights
    file = metadata.find(path) if path.is_dir() else path
    if not weights.is_file(str(file)):
        raise InputError(f"--weights {path}: expected {weights.FILE}")
    about = weights.metadata(file)
    if about is not None:
        about = metadata.read(file)
        given = {"network": options.arch, "image_size": options.image_size}
        metadata.check(file, about, {**given, "output_stride": options.output_stride})
        model = classifier(about, weights.read(file), str(file))
        sizes = about["image_size"], about["stored_size"], about["output_stride"]
        white = about["white"] if options.white is None else options.white
        return _Scored(model, file, about["network"], *sizes, white)
    if options.arch is None:
        raise InputError(f"missing --arch: {file} does not say which network its weights are for")
    size, stride = options.image_size or 224, options.output_stride or 32
    model = _model(options.arch, file, stride)
    return _Scored(model, file, options.arch, size, size, stride, options.white)


def _score(options: Options, images: Table, scored: _Scored, identity: dict[str, object], done: int) -> None:
    """Score the images after the first `done` ones, and keep every block that is finished."""
    place, out, model = torch_device(options.device), options.out, scored.model
    model.to(place)
    widths = {"logits": model.head.out_features, "features": model.head.in_features}
    files = {}
    for name, width in widths.items():
        file = out / f"{name}.npy.part"
        if not done:
            np.lib.format.open_memmap(file, "w+", np.float32, (len(images), width))
        files[name] = np.load(file, mmap_mode="r+")
    decoding = decode.choose(options.decoder, place)
    _log.info(f"{images.name}: {len(images)} images; decoder {decoding.name}")
    stored = store.StoreOptions(scored.image_size, scored.stored_size, decoding)
    with progress.bar(f"scoring {images.name}", len(images) - done) as advance:
        for begin in range(done, len(images), BLOCK):
            rows = slice(begin, min(begin + BLOCK, len(images)))
            part = _rows(images, rows)
            samples = store.build(part, stored)
            values = score(model, samples, torch.arange(len(part), device=place))
            for name, value in zip(widths, (x for x in values if x is not None), strict=True):
                if not bool(value.isfinite().all()):
                    raise InputError(
                        f"the model's {name} are not finite numbers; check --weights {options.weights}"
                    )
                files[name][rows] = value.cpu().numpy()
                files[name].flush()
            if rows.stop < len(images):
                write_json(out / KEPT, {**identity, "done": rows.stop})
            advance(len(part))


def _rows(images: Table, rows: slice) -> Table:
    """Some rows of a table, without masks and split, which scoring does not read."""
    count = rows.stop - rows.start
    return dataclasses.replace(
        images,
        ids=images.ids[rows],
        images=images.images[rows],
        labels=images.labels[rows],
        masks=[None] * count,
        split=[""] * count,
    )


def _images(options: Options) -> Table:
    """The images to score: a plain folder of pictures, or a data set."""
    path = Path(options.data).expanduser()
    plain = path.is_dir() and not (path / "images").is_dir() and options.format == "auto"
    rule = Rule(white=options.white)
    if plain and options.root is None:
        images = dataclasses.replace(read_images(path), rule=rule)
    else:
        images = load_table(options.data, options.root, rule, options.its_format)
    broken = [name for name in images.ids if len(name.splitlines()) != 1]
    if broken:
        raise InputError(
            f"{images.name}: id {broken[0]!r} does not fit on a line of ids.txt; rename the file"
        )
    return images


def _model(arch: str, path: Path, output_stride: int) -> Classifier:
    """The network, with a head as wide as that of the weights."""
    if not weights.is_file(str(path)):
        raise InputError(f"--weights {path}: expected {weights.FILE}")
    state = weights.unwrapped(weights.read(path), network(arch)(2).state_dict())
    head = f"{network(arch).head}.bias"
    if head not in state:
        raise InputError(f"--weights {path}: no head in it ({head}), so no logits")
    return build(arch, len(state[head]), weights=str(path), output_stride=output_stride)
