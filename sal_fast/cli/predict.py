"""sal-fast predict: the classes of images, by a trained model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sal_fast.cli import parsing
from sal_fast.cli.files import Machine
from sal_fast.cli.output import say
from sal_fast.trained import named
from sal_fast.trained.model import load_model
from sal_fast.trained.predict import predict

Model = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
Images = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]


@dataclass(frozen=True, kw_only=True)
class Options(Machine):
    """Write the class and the probabilities of images to a table.

    The table is OUT/predictions.csv, or .parquet with --format parquet. It has a row for each image: id,
    image, predicted, probability, p_CLASS for every class, and error for a file that cannot be used. The same
    command continues one that was interrupted.
    """

    model: Model
    """The folder of a run, its folder model, or a .safetensors file that a run wrote."""
    images: Images
    """Pictures, folders of pictures at any depth, or manifests with a column image and perhaps id."""
    out: Path
    """The folder to write to."""
    form: Annotated[Literal["csv", "parquet"], tyro.conf.arg(name="format")] = "csv"
    """The format of the table."""


def main(arguments: list[str]) -> int:
    options = parsing.one_line(Options, arguments, "sal-fast predict")
    model = load_model(options.model, options.device)
    images = named.table(options.images, model.metadata["white"])
    file = predict(model, images, options.out, form=options.form, decoder=options.decoder)
    say(f"{len(images)} images, {len(model.classes)} classes: {file}")
    return 0
