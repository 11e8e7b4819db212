"""The layer whose output a CAM is made of, where it is not the features before the global average pool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torchvision.models import ResNet, SwinTransformer

from sal_fast._util.suggest import nearest
from sal_fast.errors import InputError

FEATURES = "features"
CONV3 = "conv3"


def resolve(net: nn.Module, arch: str, name: str) -> str:
    """The dotted name of a module of the network, or `features`.

    `conv3` is that of a ResNet's last block, before its batch norm: what the public CYBORG code hooks.

    Raises InputError with the nearest name for one that the network has not.
    """
    if isinstance(net, ResNet):
        if name == "layer4":
            return FEATURES
        if name == CONV3:
            last = f"layer4.{len(net.layer4) - 1}"
            if hasattr(net.layer4[-1], CONV3):
                return f"{last}.{CONV3}"
            raise InputError(
                f"--cam-layer {CONV3}: {arch} has none; its last convolution is {last}.conv2, name that"
            )
    names = [known for known, _ in net.named_modules() if known]
    if name == FEATURES or name in names:
        return name
    raise InputError(
        f"--cam-layer {name!r}: {arch} has no such layer; the nearest is {nearest(name, names, cutoff=0)!r} "
        f"(expected features, conv3 of a ResNet-50, or a module's dotted name)"
    )


class Watched:
    """One layer of a network in one forward pass. `name` is one that `resolve` gave."""

    def __init__(self, net: nn.Module, name: str) -> None:
        self.name, self.layer = name, net.get_submodule(name)
        self._nhwc = isinstance(net, SwinTransformer) and not isinstance(self.layer, nn.Conv2d)
        self._seen: list[object] = []

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """The layer's output is handed on as a copy: what follows may work in place."""

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
        """The layer's output, [B, C, h, w]; InputError where it is nothing of the kind."""
        ran = len(self._seen)
        if ran != 1:
            how = f"runs {ran} times in a forward pass" if ran else "takes no part in a forward pass"
            raise InputError(f"--cam-layer {self.name}: that layer {how}; name one that runs once")
        (output,) = self._seen
        if not isinstance(output, Tensor) or output.ndim != 4 or not output.is_floating_point():
            got = f"{list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise InputError(
                f"--cam-layer {self.name}: expected a layer that gives maps [B, C, h, w], got {got}"
            )
        return self.to_maps(output)

    def to_maps(self, output: Tensor) -> Tensor:
        """[B, C, h, w] of an output that Swin has as [B, h, w, C]."""
        return output.permute(0, 3, 1, 2) if self._nhwc else output


class Logits(nn.Module):
    """A classifier without the features beside its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)[0]
        return logits
