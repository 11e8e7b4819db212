"""A trained model in use: from files to a table of classes, and what it costs to judge its maps."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import polars as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from sal_fast import metrics, ops
from sal_fast._util.words import MEAN, STD
from sal_fast.bench.cases.data import write_pool
from sal_fast.bench.suite import Case, Ratio, Setup, benchmark
from sal_fast.data import decode, reading
from sal_fast.errors import InputError
from sal_fast.models import build
from sal_fast.trained.model import SalModel
from sal_fast.trained.predict import predict as predicted

PREDICT, BARE, LOADER = "predict", "decode, bare forward loop", "DataLoader, torchvision"


@benchmark(rounds=3, unit="images")
def predict(setup: Setup, images: int = 128, arch: str = "resnet50", image_size: int = 224) -> Iterator[Case]:
    """CPU seconds of `sal-fast predict`, against decoding plus a bare forward loop, and a DataLoader.

    The files are JPEGs of 500 x 375, and the weights are random. The bare way decodes and resizes the files,
    and looks at a fixed batch as often. The usual way has a DataLoader without workers, and transforms of
    torchvision. All three read the same files, in batches of the same size. What is measured is the time that
    all threads of the process spend on a processor, not the time that passes.

    Args:
        images: images.
        arch: the network.
        image_size: pixels a side that the network sees.
    """
    if setup.trace is not None:
        raise InputError("--trace: predict measures a command, not one call; `sal-fast bench score` has it")
    model = made(arch, image_size).to(setup.place).eval()
    with tempfile.TemporaryDirectory() as place:
        pool = write_pool(Path(place) / "pool", images)
        files = pool.images
        fixed = model.preprocess(files[: reading.BATCH])
        loader = DataLoader(_Files(files, image_size), batch_size=reading.BATCH)

        def ours() -> Tensor:
            with tempfile.TemporaryDirectory() as out:
                rows = pl.read_csv(predicted(model, pool, Path(out) / "predictions"))
            return torch.from_numpy(rows.select(pl.col("^p_.*$")).to_numpy())

        @torch.no_grad()
        def bare() -> None:
            with closing(decode.choose("auto", setup.place)) as decoder:
                for at in range(0, images, reading.BATCH):
                    pixels = reading.pictures(files[at : at + reading.BATCH], image_size, decoder)
                    model.classifier(fixed[: len(pixels)])

        @torch.no_grad()
        def loaded() -> Tensor:
            return torch.cat([model(part.to(setup.place)).softmax(1).cpu() for part in loader])

        # the transforms round to grey levels in another place
        torch.testing.assert_close(ours().float(), loaded(), rtol=0.05, atol=0.02)

        def parts() -> dict[str, float]:
            return {PREDICT: _cpu(ours), BARE: _cpu(bare), LOADER: _cpu(loaded)}

        ratios = [Ratio(PREDICT, BARE, at_most=1.05), Ratio(LOADER, PREDICT)]
        yield Case(parts=parts, ratios=ratios, items=images)


@benchmark(unit="maps")
def figures(setup: Setup, maps: int = 64, side: int = 7, frame: int = 224) -> Iterator[Case]:
    """The figures of maps beside what people marked, against a forward pass of a ResNet-18 on the images.

    The figures are those of `metrics.map_figures`: Dice, IoU, pointing game and energy, and beside graded
    maps CC, KL, NSS, SIM and AUC-Judd as well. Insertion and deletion are left out, because they are passes
    of the network.

    Args:
        maps: maps, and images.
        side: pixels a side of a CAM.
        frame: pixels a side of the human maps and of the images.
    """
    randn, rand, _ = setup.draws(0)
    network = build("resnet18", 10).to(setup.place).eval()
    images, cams = randn(maps, 3, frame, frame), rand(maps, side, side)
    around = torch.linspace(-2, 2, frame, device=setup.place).square()
    graded = (255 * torch.exp(-around[:, None] - around)).byte().expand(maps, -1, -1).contiguous()
    masks = ops.BitMask.pack(graded > 127)
    variants = {
        "graded": lambda: metrics.map_figures(cams, graded),
        "masks": lambda: metrics.map_figures(cams, masks),
        "forward": torch.no_grad()(lambda: network(images)),
    }
    ratios = [Ratio("graded", "forward", at_most=0.1), Ratio("masks", "forward", at_most=0.1)]
    yield Case(variants=variants, ratios=ratios, items=maps)


def made(arch: str, image_size: int) -> SalModel:
    """A model with random weights."""
    about = {
        "classes": [f"class {number}" for number in range(10)],
        "network": arch,
        "image_size": image_size,
        "stored_size": image_size,
        "output_stride": 32,
        "normalisation": {"mean": list(MEAN), "std": list(STD)},
        "cam_layer": "features",
        "probe": "cam",
        "white": None,
    }
    return SalModel(build(arch, 10), about)


def _cpu(work: Callable[[], object]) -> float:
    """The seconds that all threads of this process spend on a processor while they do some work."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


class _Files(Dataset[Tensor]):
    """The usual data set of files, by torchvision."""

    def __init__(self, files: list[Path], size: int) -> None:
        self.files = files
        self.to_input = v2.Compose(
            [
                v2.Resize((size, size), antialias=True),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Tensor:
        image: Tensor = self.to_input(decode_image(str(self.files[row]), ImageReadMode.RGB))
        return image
