"""The layer whose output a CAM is made of, where that is not the features before the global average pool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from sal_fast._util.suggest import nearest
from sal_fast.errors import InputError
from sal_fast.models.backbone import FEATURES, Backbone


def resolve(net: nn.Module, backbone: Backbone, name: str) -> str:
    """The dotted name of a module of the network, or `features`.

    Raises InputError with the nearest name if the network has no such layer.
    """
    aliases = backbone.aliases(net)
    meant = aliases.get(name, name)
    names = [known for known, _ in net.named_modules() if known]
    if meant == FEATURES or meant in names:
        return meant
    raise InputError(
        f"--cam-layer {name!r}: {backbone.name} has no such layer; the nearest is "
        f"{nearest(meant, names, cutoff=0)!r} (expected {', '.join((FEATURES, *aliases))} or a module's "
        f"dotted name)"
    )


class Watched:
    """One layer of a network in one forward pass. `name` comes from `resolve`."""

    def __init__(self, net: nn.Module, backbone: Backbone, name: str) -> None:
        self.name, self.layer, self._backbone = name, net.get_submodule(name), backbone
        self._seen: list[object] = []

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Keep the layer's output, and hand on a copy of it: the modules behind may work in place."""

        def keep(layer: nn.Module, given: object, output: object) -> object:
            self._seen.append(output)
            return output.clone() if isinstance(output, Tensor) else output

        hook = self.layer.register_forward_hook(keep)
        try:
            yield
        finally:
            hook.remove()

    @property
    def maps(self) -> Tensor:
        """The layer's output, [B, C, h, w]; InputError if it is anything else."""
        ran = len(self._seen)
        if ran != 1:
            how = f"runs {ran} times in a forward pass" if ran else "takes no part in a forward pass"
            raise InputError(f"--cam-layer {self.name}: that layer {how}; name one that runs once")
        (output,) = self._seen
        if isinstance(output, Tensor) and output.ndim == 4 and output.is_floating_point():
            return self.to_maps(output)
        got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"--cam-layer {self.name}: expected a layer that gives maps [B, C, h, w], got {got}")

    def to_maps(self, output: Tensor) -> Tensor:
        """Rearrange the layer's output into [B, C, h, w]."""
        return self._backbone.maps(self.layer, output)


class Logits(nn.Module):
    """A classifier that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)[0]
        return logits
