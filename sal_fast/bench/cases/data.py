"""How fast images and masks become batches: decoding, augmenting and delivering, apart and together."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sal_fast import models
from sal_fast.bench.suite import Benchmark as Base
from sal_fast.bench.suite import Case, Ratio, Variant
from sal_fast.data import Keep, Store, StoreOptions, augment, decode, formats, reading, store
from sal_fast.data.augment import Augmentation
from sal_fast.data.decode.base import Decoder
from sal_fast.data.table import Table

WIDTH, HEIGHT = 500, 375
FRAME = 224
BATCH = 32
DISTINCT = 64  # photographs; the others are the same under other names
NONE = Augmentation("none", 0, 0, 0)
STANDARD = Augmentation("standard", 0, 0, 0)
LOADS = (0.0, 0.35, 0.65, 1.0)  # shares of a batch for a GPU's JPEG engine


@dataclass(frozen=True)
class Benchmark(Base):
    """Files to batches: decoding, augmenting and delivering, against DataLoaders with Pillow and OpenCV.

    The files are JPEGs of 500 x 375 with PNG masks, made on the spot. They become batches of 224 x 224 with
    crop and flip. OpenCV resizes without antialias, and is left out if it is not installed.
    """

    LEAST: ClassVar = {"workers": 0}
    SMALL: ClassVar = {"images": 33, "workers": 0}
    UNIT: ClassVar = "images"

    images: int = 512
    """Images."""
    workers: int = 2
    """Processes of each DataLoader."""
    folder: Path | None = None
    """The folder to make the files in; None stands for a temporary one."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            samples = write_pool(Path(place), self.images)
            decoders = _decoders(device)
            with closing(decode.choose("auto", device)) as automatic:
                variants: dict[str, Variant] = {
                    **{name: partial(_decode, samples, decoder) for name, decoder in decoders.items()},
                    **_epochs(samples, automatic),
                    **_loaders(samples, self.workers, device),
                }
                ours = ("first epoch, standard", "streamed epoch, standard")
                theirs = [name for name in variants if name.startswith("DataLoader")]
                yield Case(
                    variants=variants,
                    ratios=[
                        *(Ratio(loader, name) for name in ours for loader in theirs),
                        *(Ratio(f"first epoch, {kind}", f"augment {kind}") for kind in ("none", "standard")),
                    ],
                    items=self.images,
                    figures=partial(idle_share, samples, device) if device.type == "cuda" else dict,
                )
            for decoder in decoders.values():
                decoder.close()


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
    return formats.read_folder(folder).with_split(["train"] * count)


def _noise(rng: np.random.Generator, scale: int) -> np.ndarray:
    """Return blotches some `scale` pixels wide, [HEIGHT, WIDTH, 3] in 0..255; single pixels are weak."""
    small = rng.integers(0, 256, (HEIGHT // scale + 2, WIDTH // scale + 2, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(0.5)), dtype=np.float64) * (
        1 if scale > 1 else 0.2
    )


def _decoders(device: torch.device) -> dict[str, Decoder]:
    names = [name for name in decode.NAMES if name != "auto" and (name != "dali" or decode.has_dali())]
    decoders = {f"decode {name}": decode.choose(name, device) for name in names}
    if device.type == "cuda" and "dali" in names:
        from sal_fast.data.decode.dali import DaliDecoder

        decoders |= {f"decode dali, JPEG engine {load:g}": DaliDecoder(device, load) for load in LOADS}
    return decoders


def _decode(samples: Table, decoder: Decoder) -> None:
    """Decode all images to the size that they are stored in for the augmentation `standard`."""
    stored = augment.stored_size("standard", FRAME)
    for _ in reading.parts(samples, range(len(samples)), StoreOptions(FRAME, stored, decoder)):
        pass


def _epochs(samples: Table, decoder: Decoder) -> dict[str, Variant]:
    """Return epochs from a store, with its making (first) or while it is made (streamed)."""
    larger = augment.stored_size("standard", FRAME)

    def build(stored: int, keep: Keep = "resident") -> Store:
        return store.build(samples, StoreOptions(FRAME, stored, decoder, keep))

    return {
        "augment none": partial(_epoch, build(FRAME), NONE),
        "augment standard": partial(_epoch, build(larger), STANDARD),
        "first epoch, none": lambda: _epoch(build(FRAME), NONE),
        "first epoch, standard": lambda: _epoch(build(larger), STANDARD),
        "streamed epoch, standard": partial(_epoch, build(larger, "stream"), STANDARD),
    }


def _epoch(samples: Store, augmentation: Augmentation) -> None:
    rows = torch.randperm(len(samples.table), generator=torch.Generator().manual_seed(0)).to(samples.device)
    groups = rows.split(BATCH)
    draws = samples.draws(groups, augmentation)
    for at, drawn, _view in zip(groups, draws, samples.views(groups, draws), strict=True):
        samples.masks.batch(at, drawn.box)


def _loaders(samples: Table, workers: int, device: torch.device) -> dict[str, Variant]:
    datasets: dict[str, Dataset[Any]] = {"Pillow": ByPillow(samples)}
    if importlib.util.find_spec("cv2"):
        datasets["OpenCV"] = ByOpenCV(samples)
    loader = partial(
        DataLoader, batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return {
        f"DataLoader, {name}, {workers} workers": partial(_drain, loader(dataset), device)
        for name, dataset in datasets.items()
    }


def _drain(loader: DataLoader[Any], device: torch.device) -> None:
    for images, masks in loader:
        images.to(device), masks.to(device)


class ByPillow(Dataset[tuple[Tensor, Tensor]]):
    """The usual data set: it crops the original image by Pillow."""

    def __init__(self, samples: Table) -> None:
        self.paths = list(zip(samples.images, samples.masks, strict=True))
        self.keys = augment.keys(samples.ids)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        image_path, mask_path = self.paths[row]
        assert mask_path is not None
        image, mask = Image.open(image_path).convert("RGB"), Image.open(mask_path).convert("L")
        box, flip = _crop(self.keys[row : row + 1], image.size)
        image = image.resize((FRAME, FRAME), Image.Resampling.BILINEAR, box=box)
        mask = mask.resize((FRAME, FRAME), Image.Resampling.NEAREST, box=box)
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)
        return _normalised(pixels), torch.from_numpy(np.array(mask)) > 127


class ByOpenCV(ByPillow):
    """The same by OpenCV: a crop of the array, resized without antialias."""

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        import cv2

        cv2.setNumThreads(1)
        image: Any = cv2.cvtColor(cv2.imread(str(self.paths[row][0]), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        mask: Any = cv2.imread(str(self.paths[row][1]), cv2.IMREAD_GRAYSCALE)
        box, flip = _crop(self.keys[row : row + 1], image.shape[1::-1])
        left, top, right, bottom = (round(edge) for edge in box)
        image = cv2.resize(image[top:bottom, left:right], (FRAME, FRAME), interpolation=cv2.INTER_LINEAR)
        mask = cv2.resize(mask[top:bottom, left:right], (FRAME, FRAME), interpolation=cv2.INTER_NEAREST)
        if flip:
            image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
        pixels = torch.from_numpy(image).permute(2, 0, 1).float().div_(255)
        return _normalised(pixels), torch.from_numpy(mask) > 127


def _crop(key: np.ndarray, size: tuple[int, int]) -> tuple[tuple[float, float, float, float], bool]:
    """Return a draw of the preset `standard` in pixels, and whether it is mirrored."""
    box = STANDARD.draw(key).box
    assert box is not None
    left, top, right, bottom = box[0].tolist()
    flip = right < left
    left, right = min(left, right), max(left, right)
    return (left * size[0], top * size[1], right * size[0], bottom * size[1]), flip


def _normalised(pixels: Tensor) -> Tensor:
    mean, std = torch.tensor(augment.MEAN)[:, None, None], torch.tensor(augment.STD)[:, None, None]
    return pixels.sub_(mean).div_(std)


def idle_share(samples: Table, device: torch.device, steps: int = 30, batch: int = 256) -> dict[str, float]:
    """Return the share of time for which a GPU waits for data, in training ResNet-50 (bf16, channels_last).

    It is 1 - (time with a fixed tensor) / (time with the data), for a resident and for a streamed store.
    """
    decoder = decode.choose("auto", device)
    model = models.build("resnet50", 1000, seed=0).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)

    def train(views: Iterator[Tensor]) -> float:
        torch.cuda.synchronize(device)
        begin = time.perf_counter()
        for images in views:
            with torch.autocast("cuda", torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(model(images)[0], labels[: len(images)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    fixed = torch.randn(batch, 3, FRAME, FRAME, device=device).to(memory_format=torch.channels_last)
    train(iter([fixed] * 5))
    bare = train(iter([fixed] * steps))
    shares = {"train_images_per_second_fixed": steps * batch / bare}
    keeps: tuple[Keep, ...] = ("resident", "stream")
    for keep in keeps:
        samples_kept = store.build(
            samples, StoreOptions(FRAME, augment.stored_size("standard", FRAME), decoder, keep)
        )
        rows = torch.arange(steps * batch, device=device) % len(samples)
        groups = rows.split(batch)
        draws = samples_kept.draws(groups, STANDARD)
        fed = train(samples_kept.views(groups, draws))
        shares[f"idle_share_{keep}"] = max(0.0, 1 - bare / fed)
    return shares
