"""sal-fast predict: the classes of images, by a trained model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sal_fast.cli import parsing
from sal_fast.cli.files import Machine
from sal_fast.cli.output import say
from sal_fast.data import Table
from sal_fast.trained import named
from sal_fast.trained.model import SalModel, load_model
from sal_fast.trained.predict import predict

Model = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
Images = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]


@dataclass(frozen=True, kw_only=True)
class OnImages(Machine):
    """A model, and the images that it looks at."""

    model: Model
    """The folder of a run, its folder model, or a .safetensors file that a run wrote."""
    images: Images
    """Pictures, folders of pictures at any depth, or manifests with a column image and perhaps id."""
    out: Path
    """The folder to write to."""
    white: float | None = None
    """The number that is white in images of more than 8 bits; without it that of the run."""

    def loaded(self) -> tuple[SalModel, Table]:
        """The model and the images. Raises InputError if one of them cannot be had."""
        model = load_model(self.model, self.device)
        white = model.metadata["white"] if self.white is None else self.white
        return model, named.table(self.images, white, self.out)


@dataclass(frozen=True, kw_only=True)
class Options(OnImages):
    """Write the class and the probabilities of images to a table.

    The table is OUT/predictions.csv, or .parquet with --format parquet. It has a row for each image: id,
    image, predicted, probability, p_CLASS for every class, and error for a file that cannot be used. The same
    command continues one that was interrupted.
    """

    form: Annotated[Literal["csv", "parquet"], tyro.conf.arg(name="format")] = "csv"
    """The format of the table."""


def main(arguments: list[str]) -> int:
    options = parsing.one_line(Options, arguments, "sal-fast predict")
    model, images = options.loaded()
    file = predict(model, images, options.out, form=options.form, decoder=options.decoder)
    say(f"{len(images)} images, {len(model.classes)} classes: {file}")
    return 0
