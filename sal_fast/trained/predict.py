"""Classes and probabilities of images, as a CSV or Parquet file."""

from pathlib import Path
from typing import Literal

import polars as pl
from torch import Tensor

from sal_fast._util.words import DecoderName
from sal_fast.data import Table
from sal_fast.data.reading import Part
from sal_fast.errors import InputError
from sal_fast.train.evaluate import in_halves
from sal_fast.trained import blocks
from sal_fast.trained.model import SalModel

BLOCK = 2048  # images whose rows are written together


def predict(
    model: SalModel,
    images: Table,
    out: Path,
    *,
    form: Literal["csv", "parquet"] = "csv",
    decoder: DecoderName = "auto",
) -> Path:
    """Write the class and the probabilities of each image, and return the file, `<out>/predictions.<form>`.

    A row has `id`, `image` (its path), `predicted` (a class, the first of equal ones), `probability` (of that
    class), `p_<class>` for every class, and `error`: why the file cannot be used, in which case all columns
    between are empty. Probabilities are the softmax of the logits. The same call continues one that was
    interrupted, and does nothing if the file is there.

    Raises InputError if `out` holds predictions of anything else, or if logits are not finite.
    """
    file = out / f"predictions.{form}"

    def work(part: Part) -> pl.DataFrame:
        ids, paths = [images.ids[row] for row in part.rows], [images.images[row] for row in part.rows]
        logits = finite(in_halves(model, model.normalised(part.images)))
        return _rows(model, ids, paths, logits.softmax(1).cpu(), part)

    blocks.go_through(
        model,
        images,
        file,
        work,
        identity={"form": form},
        size=BLOCK,
        holds="predictions",
        decoder=decoder,
    )
    return file


def finite(logits: Tensor) -> Tensor:
    """The logits. Raises InputError if they are not all finite."""
    if not bool(logits.isfinite().all()):
        raise InputError("the model's logits are not finite numbers; its weights are damaged")
    return logits


def _rows(
    model: SalModel, ids: list[str], paths: list[Path], probabilities: Tensor, part: Part
) -> pl.DataFrame:
    best = probabilities.argmax(1)
    errors = {at: error.reason for at, error in part.broken.items()}
    kept = [None if at in errors else at for at in range(len(ids))]

    def column(values: Tensor) -> list[float | None]:
        numbers = values.tolist()
        return [None if at is None else numbers[at] for at in kept]

    top = probabilities.gather(1, best[:, None])[:, 0]
    texts = {
        "id": ids,
        "image": list(map(str, paths)),
        "predicted": [None if at is None else model.classes[int(best[at])] for at in kept],
    }
    numbers = {"probability": column(top)} | {
        f"p_{name}": column(values) for name, values in zip(model.classes, probabilities.T, strict=True)
    }
    return pl.DataFrame(
        texts | numbers | {"error": [errors.get(at) for at in range(len(ids))]},
        schema={
            **dict.fromkeys(texts, pl.String),
            **dict.fromkeys(numbers, pl.Float32),
            "error": pl.String,
        },
    )
