"""How fast images and masks become batches: decoding, augmenting and delivering, apart and together."""

import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sal_fast._util.words import DECODERS
from sal_fast.bench.suite import Case, Ratio, Setup, Variant, benchmark
from sal_fast.data import Keep, Store, StoreOptions, Table, augment, decode, load_table, reading, store

WIDTH, HEIGHT = 500, 375
FRAME = 224
BATCH = 32
DISTINCT = 64  # photographs; the others are the same under other names
NONE = augment.Augmentation("none", 0, 0, 0)
STANDARD = augment.Augmentation("standard", 0, 0, 0)
LOADS = (0.0, 0.35, 0.65, 1.0)  # shares of a batch for a GPU's JPEG engine


@benchmark(unit="images", least={"workers": 0})
def data(setup: Setup, images: int = 512, workers: int = 2, folder: str | None = None) -> Iterator[Case]:
    """Files to batches: decoding, augmenting and delivering, against DataLoaders with Pillow and OpenCV.

    The files are JPEGs of 500 x 375 with PNG masks, made on the spot. They become batches of 224 x 224 with
    crop and flip. OpenCV resizes without antialias, and is left out if it is not installed.

    Args:
        images: images.
        workers: processes of each DataLoader.
        folder: the folder to make the files in; None stands for a temporary one.
    """
    device, larger = setup.place, augment.stored_size("standard", FRAME)

    def decoded(decoder: decode.Decoder) -> None:
        for _ in reading.parts(samples, range(len(samples)), StoreOptions(FRAME, larger, decoder)):
            pass

    def build(stored: int, keep: Keep = "resident") -> Store:
        return store.build(samples, StoreOptions(FRAME, stored, automatic, keep))

    with tempfile.TemporaryDirectory(dir=folder) as place, ExitStack() as stack:
        samples = write_pool(Path(place), images)
        decoders = _decoders(device)
        for decoder in decoders.values():
            stack.callback(decoder.close)
        automatic = decoders.pop("decode auto")
        loaders = _loaders(samples, workers, device)
        epochs: dict[str, Variant] = {
            "augment none": partial(_epoch, build(FRAME), NONE),
            "augment standard": partial(_epoch, build(larger), STANDARD),
            "first epoch, none": lambda: _epoch(build(FRAME), NONE),
            "first epoch, standard": lambda: _epoch(build(larger), STANDARD),
            "streamed epoch, standard": partial(_epoch, build(larger, "stream"), STANDARD),
        }
        decoding = {name: partial(decoded, decoder) for name, decoder in decoders.items()}
        compared = ("first epoch, standard", "streamed epoch, standard")
        ratios = [Ratio(name, ours) for ours in compared for name in loaders]
        ratios += [Ratio(f"first epoch, {kind}", f"augment {kind}") for kind in ("none", "standard")]
        yield Case(variants=decoding | epochs | loaders, ratios=ratios, items=images)


def write_pool(folder: Path, count: int) -> Table:
    """Write JPEGs of some 80 kB, more detailed than most photographs, and masks; all are training images."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind / "all").mkdir(parents=True)
    for number in range(count):
        image, mask = folder / f"images/all/{number:06d}.jpg", folder / f"masks/all/{number:06d}.png"
        if number >= DISTINCT:
            first = f"{number % DISTINCT:06d}"
            os.link(image.with_stem(first), image)
            os.link(mask.with_stem(first), mask)
            continue
        layers = [_noise(rng, scale) for scale in (1, 3, 12, 60)]
        Image.fromarray(np.clip(sum(layers) / 2, 0, 255).astype(np.uint8)).save(image, quality=90)
        shape = _noise(rng, 40)[..., 0] > 128
        Image.fromarray(np.where(shape, 255, 0).astype(np.uint8)).save(mask)
    return load_table(str(folder)).with_split(["train"] * count)


def _noise(rng: np.random.Generator, scale: int) -> np.ndarray:
    """Return blotches some `scale` pixels wide, [HEIGHT, WIDTH, 3] in 0..255; single pixels are weak."""
    small = rng.integers(0, 256, (HEIGHT // scale + 2, WIDTH // scale + 2, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    strength = 1 if scale > 1 else 0.2
    return strength * np.asarray(image.filter(ImageFilter.GaussianBlur(0.5)), dtype=np.float64)


def _decoders(device: torch.device) -> dict[str, decode.Decoder]:
    names = [name for name in DECODERS if name != "dali" or decode.has_dali()]
    decoders = {f"decode {name}": decode.choose(name, device) for name in names}
    if device.type == "cuda" and "dali" in names:
        from sal_fast.data.decode.dali import DaliDecoder

        decoders |= {f"decode dali, JPEG engine {load:g}": DaliDecoder(device, load) for load in LOADS}
    return decoders


def _epoch(samples: Store, augmentation: augment.Augmentation) -> None:
    rows = torch.randperm(len(samples.table), generator=torch.Generator().manual_seed(0)).to(samples.device)
    groups = rows.split(BATCH)
    draws = samples.draws(groups, augmentation)
    for at, drawn, _view in zip(groups, draws, samples.views(groups, draws), strict=True):
        samples.masks.batch(at, drawn.box)


def _loaders(samples: Table, workers: int, device: torch.device) -> dict[str, Variant]:
    def drain(loader: DataLoader[Any]) -> None:
        for images, masks in loader:
            images.to(device), masks.to(device)

    croppers = {"Pillow": by_pillow} | ({"OpenCV": by_opencv} if importlib.util.find_spec("cv2") else {})
    options: dict[str, Any] = {"shuffle": True, "num_workers": workers, "persistent_workers": workers > 0}
    return {
        f"DataLoader, {name}, {workers} workers": partial(
            drain, DataLoader(Usual(samples, crop), BATCH, **options)
        )
        for name, crop in croppers.items()
    }


class Usual(Dataset[tuple[Tensor, Tensor]]):
    """The usual data set: it crops the original image and its mask, by a function."""

    def __init__(self, samples: Table, crop: Callable[[str, str, np.ndarray], tuple[Any, Any]]) -> None:
        self.paths = list(zip(samples.images, samples.masks, strict=True))
        self.keys = augment.keys(samples.ids)
        self.crop = crop

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        image_path, mask_path = map(str, self.paths[row])
        image, mask = self.crop(image_path, mask_path, self.keys[row : row + 1])
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)
        mean, std = torch.tensor(augment.MEAN)[:, None, None], torch.tensor(augment.STD)[:, None, None]
        return pixels.sub_(mean).div_(std), torch.from_numpy(np.array(mask)) > 127


def by_pillow(image_path: str, mask_path: str, key: np.ndarray) -> tuple[Any, Any]:
    """Crop by Pillow, with antialias."""
    image, mask = Image.open(image_path).convert("RGB"), Image.open(mask_path).convert("L")
    box, flip = _crop(key, image.size)
    image = image.resize((FRAME, FRAME), Image.Resampling.BILINEAR, box=box)
    mask = mask.resize((FRAME, FRAME), Image.Resampling.NEAREST, box=box)
    return (ImageOps.mirror(image), ImageOps.mirror(mask)) if flip else (image, mask)


def by_opencv(image_path: str, mask_path: str, key: np.ndarray) -> tuple[Any, Any]:
    """Crop the array and resize it by OpenCV, without antialias."""
    import cv2

    cv2.setNumThreads(1)
    image: Any = cv2.cvtColor(cv2.imread(image_path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    mask: Any = cv2.imread(mask_path, cv2.IMREAD_GRAYSCALE)
    box, flip = _crop(key, image.shape[1::-1])
    left, top, right, bottom = (round(edge) for edge in box)
    image = cv2.resize(image[top:bottom, left:right], (FRAME, FRAME), interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(mask[top:bottom, left:right], (FRAME, FRAME), interpolation=cv2.INTER_NEAREST)
    return (cv2.flip(image, 1), cv2.flip(mask, 1)) if flip else (image, mask)


def _crop(key: np.ndarray, size: tuple[int, int]) -> tuple[tuple[float, float, float, float], bool]:
    """Return a draw of the preset `standard` in pixels, and whether it is mirrored."""
    box = STANDARD.draw(key).box
    assert box is not None
    left, top, right, bottom = box[0].tolist()
    low, high = sorted((left, right))
    return (low * size[0], top * size[1], high * size[0], bottom * size[1]), right < left
