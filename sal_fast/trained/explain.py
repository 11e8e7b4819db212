"""Where a model looks: overlays, maps and one sheet, for people to look at."""

import hashlib
import logging
import re
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from sal_fast import ops
from sal_fast._util.files import whole_file
from sal_fast._util.suggest import suggest
from sal_fast._util.words import DecoderName
from sal_fast.data import Table, files
from sal_fast.data.files import Unreadable
from sal_fast.data.reading import Part
from sal_fast.errors import InputError
from sal_fast.models import Look
from sal_fast.train.evaluate import in_halves
from sal_fast.trained import blocks
from sal_fast.trained.model import SalModel
from sal_fast.trained.predict import finite

BLOCK = 256  # images whose rows are written together
LONGEST = 1024  # pixels of the longer side of an overlay; larger photographs are made smaller
LONGEST_NAME = 250  # bytes of a file's name without its ending
SHEET, COLUMNS = 24, 6  # overlays on the sheet, and in a row of it
log = logging.getLogger(__name__)
Rows = dict[str, list[str | float | None]]


def explain(
    model: SalModel,
    images: Table,
    out: Path,
    *,
    classes: str | None = None,
    probe: ops.Probe | None = None,
    decoder: DecoderName = "auto",
) -> Path:
    """Write the saliency maps of images as pictures, and return the table of them, `<out>/explain.csv`.

    Of each image with the id I there are:

    * `overlays/I.jpg`: the photograph with its map over it;
    * `maps/I.png`: the map in grey, scaled so that its lowest value is black and its highest white;
    * `maps/I.npy`: the map itself, float32 [h, w], or [T, h, w] of several classes in the table's order.

    With several classes each has pictures of its own, `I.<number>-<class>.jpg` and `.png`. `sheet.png` shows
    the first overlays. A row of the table has `id`, `image`, `class`, `probability` (of that class), the
    three files, and `error`: why the image cannot be used. The same call continues one that was interrupted.

    Args:
        model: the model.
        images: the images.
        out: the folder to write to.
        classes: None for the predicted class of each image; the name of a class; `all`; or `top3`, `top5`,
            ... for the most probable ones.
        probe: the kind of map; None for the one that the run used.
        decoder: what decodes.

    Raises InputError for an unknown class, and if `out` holds the maps of anything else.
    """
    _check(model, classes)
    file = out / "explain.csv"
    identity = {"classes": classes, "probe": probe or model.probe}

    def work(part: Part) -> pl.DataFrame:
        seen = in_halves(partial(_look, model, classes, probe or model.probe), model.normalised(part.images))
        shares = finite(seen.logits).softmax(1).gather(1, seen.classes)
        rows: Rows = {
            name: [] for name in ("id", "image", "class", "probability", "overlay", "map", "array", "error")
        }
        for at, row in enumerate(part.rows):
            known = {"id": images.ids[row], "image": str(images.images[row])}
            if at in part.broken:
                _add(rows, **known, error=part.broken[at].reason)
                continue
            try:
                photograph = _photograph(images.images[row], images.rule.white)
            except Unreadable as error:  # Pillow refuses a few files that other decoders take
                log.warning("%s; it is passed over", error)
                _add(rows, **known, error=error.reason)
                continue
            its = zip(seen.classes[at].tolist(), shares[at].tolist(), strict=True)
            _draw(rows, known, model, out, photograph, list(its), seen.cam[at].float().cpu())
        kinds = dict.fromkeys(rows, pl.String) | {"probability": pl.Float32}
        return pl.DataFrame(rows, schema=kinds)

    blocks.go_through(model, images, file, work, identity=identity, size=BLOCK, holds="maps", decoder=decoder)
    if not (out / "sheet.png").is_file():
        _sheet(pl.read_csv(file, infer_schema=False, glob=False), out)
    return file


def _check(model: SalModel, classes: str | None) -> None:
    if classes is not None and classes not in model.classes and classes != "all" and not _top(classes):
        raise InputError(f"unknown class {classes!r}{suggest(classes, ('all', 'top3', *model.classes))}")


def _top(classes: str) -> int:
    """The number of classes that a word such as top3 asks for; 0 for any other word."""
    found = re.fullmatch(r"top([1-9]\d*)", classes)
    return int(found[1]) if found else 0


def _look(model: SalModel, classes: str | None, probe: ops.Probe, x: Tensor) -> Look:
    """The logits of images, and the maps of T classes each.

    A class that is called `all` or `top3` goes before the word.
    """
    count, look = len(model.classes), partial(model.classifier.look, x, probe=probe)
    if classes is None:
        seen = look()
        return Look(seen.logits, seen.cam[:, None], seen.classes[:, None])
    if classes in model.classes:
        return look(torch.full((len(x), 1), model.class_number(classes), device=x.device))
    if classes == "all":
        return look(torch.arange(count, device=x.device).repeat(len(x), 1))
    return look(model(x).topk(min(_top(classes), count), dim=1).indices)


def _draw(
    rows: Rows,
    known: dict[str, str],
    model: SalModel,
    out: Path,
    photograph: Tensor,
    classes: Sequence[tuple[int, float]],
    maps: Tensor,
) -> None:
    """Write the files of one image, and add its rows.

    photograph: uint8 [H, W, 3]. classes: the number and the probability of T classes. maps: [T, h, w]. Both
    tensors are on the CPU.
    """
    name = known["id"]
    array = _place(out, f"maps/{name}.npy")
    np.save(array, (maps[0] if len(maps) == 1 else maps).numpy())
    size = model.image_size
    large = interpolate(maps[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]
    grey = (ops.minmax_normalize(large) * 255).round().to(torch.uint8).numpy()
    for at, (number, share) in enumerate(classes):
        own = name if len(maps) == 1 else _fitting(f"{name}.{number}-{_plain(model.classes[number])}")
        over, map_ = _place(out, f"overlays/{own}.jpg"), _place(out, f"maps/{own}.png")
        shown = ops.overlay(photograph[None], maps[at][None])[0]
        Image.fromarray(shown.numpy()).save(over, quality=90)
        Image.fromarray(grey[at]).save(map_)
        _add(
            rows,
            **known,
            **{"class": model.classes[number]},
            probability=share,
            overlay=str(over.relative_to(out)),
            map=str(map_.relative_to(out)),
            array=str(array.relative_to(out)),
        )


def _add(rows: Rows, **entries: str | float) -> None:
    for name, column in rows.items():
        column.append(entries.get(name))


def _plain(name: str) -> str:
    """A class's name as a part of a file's name."""
    return re.sub(r"[^\w-]+", "_", name)[:60]


def _fitting(name: str) -> str:
    """A file's path without its ending, whose last part is replaced if it is too long for a file's name."""
    folder, slash, last = name.rpartition("/")
    size = len(last.encode())
    return name if size <= LONGEST_NAME else folder + slash + hashlib.sha256(last.encode()).hexdigest()[:32]


def _place(out: Path, name: str) -> Path:
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _photograph(path: Path, white: float | None) -> Tensor:
    """The upright photograph, uint8 [H, W, 3], at most LONGEST pixels a side."""
    image = Image.fromarray(files.rgb(files.read(path, white)))
    image.thumbnail((LONGEST, LONGEST))
    return torch.from_numpy(np.array(image))


def _sheet(rows: pl.DataFrame, out: Path) -> None:
    """Draw the first overlays, each with its class, on one sheet."""
    drawn = rows.filter(pl.col("overlay").is_not_null())
    shown = drawn.head(SHEET)
    if not len(shown):
        return
    pictures = [_pixels(out / name) for name in shown["overlay"]]
    tallest = max(one.shape[0] / one.shape[1] for one in pictures)
    high = -(-len(shown) // COLUMNS)
    size = 2 * COLUMNS, (2 * min(tallest, 2) + 0.5) * high + 0.3  # inches; two lines of text for each row
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(high, COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, pixels, row in zip(grid, pictures, shown.iter_rows(named=True), strict=False):
        axes.imshow(pixels, interpolation="antialiased")
        said = textwrap.shorten(row["class"], 24, placeholder="…")
        title = f"{row['id'][-26:]}\n{said} {float(row['probability']):.2f}"
        axes.set_title(title, fontsize=8, parse_math=False)
    if len(drawn) > len(shown):
        figure.supxlabel(f"The first {len(shown)} of {len(drawn)}; explain.csv lists all.", fontsize=8)
    with whole_file(out / "sheet.png") as aside:
        figure.savefig(aside, format="png", dpi=120)


def _pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)
