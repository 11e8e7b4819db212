"""What `probes.find` finds in the networks of timm and torchvision.

`tests/probes/architectures.csv` is the table that the tests compare with. To see the lines of more networks:
`python tests/helpers/architectures.py timm/resnet18 torchvision/swin_t`.
"""

from __future__ import annotations

import csv
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from sal_fast import probes

TABLE = Path(__file__).parents[1] / "probes" / "architectures.csv"
SIZES = (64, 70, 96, 128, 160, 192, 224, 240, 256)


class Row(NamedTuple):
    """A line of the table: a network, and the place that is found in it."""

    library: str
    family: str  # the library's module
    name: str
    image_size: int
    layer: str
    type: str  # of the layer
    layout: str
    channels: int
    rows: int
    columns: int
    extra_tokens: int
    head: str
    closed_form: str  # always, in eval mode, never


NUMBERS = {"image_size", "channels", "rows", "columns", "extra_tokens"}


def read() -> list[Row]:
    """The lines of the committed table."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return [
            Row(**{name: int(value) if name in NUMBERS else value for name, value in line.items()})
            for line in csv.DictReader(file)
        ]


def make(library: str, name: str, size: int) -> nn.Module:
    """The network with ten classes and random weights, in eval mode. Weights of zeros are drawn."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"num_classes": 10}
    net: nn.Module
    if library == "timm":
        import timm

        known = timm.get_pretrained_cfg(name)
        if known.fixed_input_size and known.input_size[1] != size:
            settings["img_size"] = size
        net = timm.create_model(name, **settings)
    else:
        if name in ("googlenet", "inception_v3"):
            settings["init_weights"] = True
        if name.startswith("vit"):
            settings["image_size"] = size
        net = torchvision.models.get_model(name, weights=None, **settings)
    for key, weight in net.named_parameters():
        if not key.endswith("bias") and not weight.any():
            nn.init.normal_(weight, std=0.02) if weight.ndim > 1 else nn.init.uniform_(weight, 0.5, 1.5)
    return net.eval()


def pictures(size: int, count: int = 2) -> Tensor:
    """Random images."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def row(net: nn.Module, place: probes.Place, library: str, name: str, size: int) -> Row:
    """The line of the table for a network of `make`."""
    channels, rows, columns = place.shape
    closed = "always" if place.closed_form_in_training else "in eval mode" if place.closed_form else "never"
    layer = net.get_submodule(place.layer)
    layout, head = place.to_maps, place.head or ""
    family = type(net).__module__.rpartition(".")[2]
    return Row(
        library, family, name, size, place.layer, type(layer).__name__, layout.kind, channels, rows, columns,
        layout.extra, head, closed,
    )  # fmt: skip


def in_place(net: nn.Module, place: probes.Place, size: int) -> int:
    """How many of an image's quadrants change the features most in their own place when they change."""
    first, other = pictures(size)
    quadrants = [first.clone() for _ in range(4)]
    half = size // 2
    for index, image in enumerate(quadrants):
        rows = slice(0, half) if index < 2 else slice(half, size)
        columns = slice(0, half) if index % 2 == 0 else slice(half, size)
        image[:, rows, columns] = other[:, rows, columns]
    kept: list[Tensor] = []
    hook = net.get_submodule(place.layer).register_forward_hook(lambda *given: kept.append(given[2].clone()))
    with torch.no_grad():
        net(torch.stack([first, *quadrants]))
    hook.remove()
    maps = place.to_maps(kept[0])
    change = nn.functional.adaptive_avg_pool2d((maps[1:] - maps[:1]).abs().mean(1), 2).flatten(1)
    return int((change.argmax(1) == torch.arange(4)).sum())


def main(names: list[str]) -> None:
    """Write the lines of these networks, at the first image size that gives a grid of at least 2 x 2.

    A size may follow a name, as in `timm/inception_v3@128`: the first to try.
    """
    writer = csv.writer(sys.stdout)
    writer.writerow(Row._fields)
    for given in names:
        library, _, rest = given.partition("/")
        name, _, first = rest.partition("@")
        fault: Exception | None = None
        for size in [size for size in SIZES if size >= int(first or 0)]:
            try:
                net = make(library, name, size)
                place = probes.find(net, pictures(size))
            except (AssertionError, RuntimeError, TypeError, ValueError) as error:
                fault = error
                continue
            if min(place.shape[1:]) > 1:
                writer.writerow(row(net, place, library, name, size))
                if place.to_maps.kind != "nchw" and in_place(net, place, size) < 4:
                    print(f"{name}: not all quadrants are in place", file=sys.stderr)
                break
        else:
            print(f"{name}: {type(fault).__name__}: {fault}", file=sys.stderr)
        sys.stdout.flush()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1:])
