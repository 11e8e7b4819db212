"""sal-fast export: a trained model for other programs."""

from dataclasses import dataclass
from pathlib import Path

from sal_fast.cli import parsing
from sal_fast.cli.output import say
from sal_fast.cli.predict import Model
from sal_fast.trained.export import Form, export
from sal_fast.trained.model import load_model


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write a trained model to one file, for ONNX Runtime or for torch alone.

    Its input is images, float32 [B, 3, S, S] with any B. Its outputs are logits [B, K] and maps [B, h, w],
    where the model looks for the class that it predicts. The file is loaded again and compared with the
    model before it is kept. docs/use.md shows how to use it.
    """

    model: Model
    """The folder of a run, its folder model, or a .safetensors file that a run wrote."""
    to: Form
    """onnx for ONNX Runtime, which needs pip install "sal-fast[export]"; pt2 for torch.export."""
    out: Path | None = None
    """The file to write. Without it the file is model.onnx or model.pt2 in the current folder."""
    maps: bool = True
    """False leaves the maps out: the file then gives logits alone."""


def main(arguments: list[str]) -> int:
    options = parsing.one_line(Options, arguments, "sal-fast export")
    file = options.out or Path(f"model.{options.to}")
    worst = export(load_model(options.model), file, options.to, maps=options.maps)
    say(f"{file}: its results differ from the model's by at most {worst:.1e}")
    return 0
