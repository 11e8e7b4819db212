"""The built-in data set: shapes to tell apart, on a background that gives the class away in training.

There are six classes of shapes on textured ground. In train and val the background's colour goes with the
class in six images of ten. In test it is drawn at random: a model that looks at the ground instead of the
shape loses there, and its CAM shows where it looked. Masks are exact. The files are `images/<class>/*.jpg`,
`masks/<class>/*.png` and a `manifest.csv` with the splits.
"""

import colorsys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, ImageDraw, ImageFilter

from sal_fast import seeds
from sal_fast._util.files import cache_folder, whole_folder
from sal_fast._util.locks import locked
from sal_fast.data.readers.manifest import read_manifest
from sal_fast.data.table import Table
from sal_fast.errors import InputError

VERSION = "v1"  # to be raised when a pixel changes, because the files are kept between runs
CLASSES = ("circle", "cross", "ring", "square", "star", "triangle")
SIZES = {"train": 40, "val": 10, "test": 50}  # images per class
PIXELS = 96
CUE = 0.6  # how often the background goes with the class in train and val
QUARTER = np.array([[0, 1], [-1, 0]])  # turns row vectors by a quarter
OVERSAMPLE = 4  # shapes are drawn so much larger and then reduced, so that edges are smooth


def folder() -> Path:
    """The folder of the files, in `cache_folder`."""
    return cache_folder() / f"builtin-{VERSION}"


def load(root: Path | None = None) -> Table:
    """Read the built-in set. Its files are generated on first use, which takes about two seconds.

    Raises InputError for a `root`, which it does not use.
    """
    if root is not None:
        raise InputError("--data builtin takes no --root")
    place = folder()
    manifest = place / "manifest.csv"
    if not manifest.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        with locked(place.parent / ".lock"):
            if place.exists() and not manifest.is_file():
                raise InputError(f"{place} is damaged; remove it, it will be made again")
            if not place.exists():  # else another process was first
                with whole_folder(place) as aside:
                    generate(aside)
    return replace(read_manifest(manifest), name="builtin")


def generate(root: Path) -> None:
    """Write the files. Their pixels are the same every time."""
    rows = []
    for split, size in SIZES.items():
        for label, name in enumerate(CLASSES):
            for index in range(size):
                sample = f"{name}/{split}-{index:03d}"
                files = f"images/{sample}.jpg", f"masks/{sample}.png"
                for file, picture in zip(files, draw(label, split, index), strict=True):
                    (root / file).parent.mkdir(parents=True, exist_ok=True)
                    picture.save(root / file, quality=92)
                rows.append((sample, files[0], name, files[1], split))
    columns = ["id", "image", "label", "mask", "split"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(root / "manifest.csv")


def draw(label: int, split: str, index: int) -> tuple[Image.Image, Image.Image]:
    """Draw one image (RGB) and its mask (L, 0 or 255)."""
    rng = seeds.stream(0, f"builtin-{split}", label, index)
    cued = split != "test" and rng.random() < CUE
    ground = label if cued else int(rng.integers(len(CLASSES)))
    image = _ground(ground, rng)
    mask = _shape(label, rng)
    fill = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.5), rng.uniform(0.55, 1.0))) * 255
    paint = fill + rng.normal(0, 10, (PIXELS, PIXELS, 1))
    soft = np.asarray(mask.resize((PIXELS, PIXELS), Image.Resampling.BOX), dtype=np.float64)[..., None] / 255
    pixels = np.clip(image * (1 - soft) + paint * soft, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels), Image.fromarray(np.where(soft[..., 0] >= 0.5, 255, 0).astype(np.uint8))


def _ground(ground: int, rng: np.random.Generator) -> np.ndarray:
    """Paint a blotchy ground with the hue of class `ground`, [PIXELS, PIXELS, 3] in 0..255."""
    hue = (ground + rng.uniform(-0.25, 0.25)) / len(CLASSES)
    noise = Image.fromarray(rng.integers(0, 256, (PIXELS, PIXELS), dtype=np.uint8))
    blotches = np.asarray(noise.filter(ImageFilter.GaussianBlur(3)), dtype=np.float64)
    blotches = (blotches - blotches.mean()) / (blotches.std() + 1e-6)
    base = np.array(colorsys.hsv_to_rgb(hue % 1.0, 0.75, 0.55)) * 255
    return base * (1 + 0.2 * blotches[..., None]) + rng.normal(0, 6, (PIXELS, PIXELS, 3))


def _shape(label: int, rng: np.random.Generator) -> Image.Image:
    """Draw the class's shape, OVERSAMPLE times as large: at any place, a little turned, 0.44 to 0.68 of the
    side across.
    """
    side = PIXELS * OVERSAMPLE
    radius = side * rng.uniform(0.22, 0.34)
    x, y = rng.uniform(radius, side - radius, 2)
    turn = rng.uniform(-0.3, 0.3)
    canvas = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(canvas)

    def polygon(angles: np.ndarray, radii: np.ndarray | float) -> None:
        points = np.stack([x + radii * np.cos(angles + turn), y + radii * np.sin(angles + turn)], axis=-1)
        pen.polygon([(float(px), float(py)) for px, py in points], fill=255)

    name = CLASSES[label]
    if name in ("circle", "ring"):
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
        if name == "ring":
            hole = radius * 0.55
            pen.ellipse([x - hole, y - hole, x + hole, y + hole], fill=0)
    elif name == "cross":
        arm = 0.33  # half the width of a bar, in radii
        corner = np.array([[1, arm], [arm, arm], [arm, 1]])
        points = np.concatenate([corner @ np.linalg.matrix_power(QUARTER, k) for k in range(4)])
        polygon(np.arctan2(points[:, 1], points[:, 0]), radius * np.hypot(points[:, 0], points[:, 1]))
    elif name == "star":
        polygon(np.arange(10) * np.pi / 5, radius * np.where(np.arange(10) % 2 == 0, 1.0, 0.42))
    else:
        corners = 4 if name == "square" else 3
        polygon(np.arange(corners) * 2 * np.pi / corners, radius)
    return canvas
