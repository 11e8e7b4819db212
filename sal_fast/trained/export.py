"""A trained model as one file for other programs: ONNX, or torch.export's .pt2."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sal_fast import ops
from sal_fast._util.files import whole_file
from sal_fast.errors import InputError
from sal_fast.models import FEATURES
from sal_fast.models.weights import METADATA
from sal_fast.trained.model import SalModel

Form = Literal["onnx", "pt2"]
TOLERANCE = 1e-4  # the largest difference to the original, as a share of its largest value if that is above 1
BATCH = 3  # images of the example; the exported model takes any number
LIBRARIES = ("onnx", "onnxruntime", "onnxscript")


class WithMap(nn.Module):
    """A model that returns logits [B, K] and the map of the predicted class [B, h, w], in plain torch.

    With `maps=False` it returns logits alone. Raises InputError for a model whose maps need derivatives,
    which a graph of operators does not hold.
    """

    def __init__(self, model: SalModel, maps: bool = True) -> None:
        super().__init__()
        self.model, self.maps = model, maps
        classifier = model.classifier
        if maps and not (
            classifier.closed(_example(model)) if classifier.cam_layer == FEATURES else model.probe == "cam"
        ):
            raise InputError(
                f"the maps of {model.network} ({model.probe} of {model.cam_layer}) need derivatives, which "
                f"an exported model does not hold; --maps False exports the logits alone"
            )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        classifier = self.model.classifier
        if not self.maps:
            return (classifier(images)[0],)
        if classifier.cam_layer == FEATURES:
            logits, features = classifier(images)
        else:
            logits, features = self._layer(images)
        # maps of a list of classes are made in plain torch, which any program can be exported to
        best = logits.argmax(1, keepdim=True)
        return logits, ops.cam(features, classifier.head.weight, best, probe=self.model.probe)[:, 0]

    def _layer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the output of the layer that maps are made of."""
        classifier, kept = self.model.classifier, []
        layer = classifier.net.get_submodule(classifier.cam_layer)

        def keep(module: nn.Module, given: object, output: Tensor) -> Tensor:
            kept.append(output)
            return output.clone()  # the next module may work in place

        hook = layer.register_forward_hook(keep)
        try:
            logits = classifier(images)[0]
        finally:
            hook.remove()
        return logits, classifier.backbone.maps(layer, kept[0])


def export(model: SalModel, file: Path, form: Form, *, maps: bool = True) -> float:
    """Write a model to one file, and return the largest difference of its results to the model's.

    Its input is `images`, float32 [B, 3, S, S] with any B, as `SalModel.preprocess` gives them. Its outputs
    are `logits`, float32 [B, K], and `maps`, float32 [B, h, w], those of the predicted class and the model's
    probe. The metadata of the model go with it: in ONNX's metadata, or in the extra file of a .pt2, under the
    key `sal_fast`.

    Before the file is there, it is loaded again, by ONNX Runtime or torch, and compared with the model on
    random images in batches of three and one.

    Args:
        model: on the CPU.
        file: the file to write.
        form: `onnx` or `pt2`.
        maps: False leaves the maps out.

    Raises InputError if a library is missing, if the model cannot be exported, or if the exported model gives
    other results.
    """
    missing = [name for name in LIBRARIES if form == "onnx" and find_spec(name) is None]
    if missing:
        raise InputError(f'--to onnx: {", ".join(missing)} is not installed; pip install "sal-fast[export]"')
    if model.device.type != "cpu":
        raise InputError(f"expected a model on the CPU, got one on {model.device}; load it with device='cpu'")
    exported, images = WithMap(model, maps).eval(), _example(model)
    with torch.no_grad(), _quiet():
        exported(images)
        batch = {"images": {0: torch.export.Dim("batch")}}
        try:
            program = torch.export.export(exported, (images,), dynamic_shapes=batch)
        except Exception as error:  # of many kinds: whatever the network's code raises when it is traced
            raise InputError(f"{model.network} cannot be exported: {_first(error)}") from error
        with whole_file(file) as aside:
            said = json.dumps(model.metadata, ensure_ascii=False)
            run = (_to_onnx if form == "onnx" else _to_pt2)(program, aside, said, maps)
            worst = max(_difference(exported, run, images[:count]) for count in (BATCH, 1))
            if worst > TOLERANCE:
                raise InputError(
                    f"the exported model's results differ from the model's by {worst:.2g}, more than "
                    f"{TOLERANCE:g}; nothing was written"
                )
    return worst


def _to_onnx(
    program: torch.export.ExportedProgram, file: Path, said: str, maps: bool
) -> Callable[[Tensor], list[Tensor]]:
    """Write a program as ONNX, and return how ONNX Runtime computes it."""
    import onnxruntime

    names = ["logits", "maps"][: 1 + maps]
    try:
        made = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["images"],
            output_names=names,
            dynamic_shapes={"images": {0: "batch"}},
            verbose=False,
        )
    except Exception as error:  # the exporter wraps whatever it meets
        raise InputError(f"the network cannot be written as ONNX: {_first(error)}") from error
    assert made is not None
    made.model.metadata_props[METADATA] = said
    made.save(file, external_data=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(one) for one in session.run(names, {"images": images.numpy()})]


def _to_pt2(
    program: torch.export.ExportedProgram, file: Path, said: str, maps: bool
) -> Callable[[Tensor], list[Tensor]]:
    """Write a program as .pt2, and return how torch computes it."""
    buffer = io.BytesIO()  # a file would have to be called .pt2
    torch.export.save(program, buffer, extra_files={METADATA: said})
    file.write_bytes(buffer.getvalue())
    loaded = torch.export.load(io.BytesIO(file.read_bytes())).module()
    return lambda images: list(loaded(images))


def _difference(model: nn.Module, run: Callable[[Tensor], list[Tensor]], images: Tensor) -> float:
    """The largest difference of an exported model's outputs, as a share of the largest value if above 1."""
    worst = 0.0
    for own, other in zip(model(images), run(images), strict=True):
        worst = max(worst, float((own - other).abs().max()) / max(1.0, float(own.abs().max())))
    return worst


def _example(model: SalModel) -> Tensor:
    """Random images, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(BATCH, 3, model.image_size, model.image_size, generator=generator)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' notes for programmers off the screen, such as what is deprecated in them."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _first(error: Exception) -> str:
    """The first line of the innermost cause of an error."""
    inner: Any = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    return next(iter(str(inner).splitlines()), type(inner).__name__)
