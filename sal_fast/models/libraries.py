"""Find the network that a name stands for: a plug-in, or any classification network of torchvision or timm.

What the package needs of such a network is found out by watching it run (`sal_fast.probes.find`).
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from sal_fast import plugins, probes
from sal_fast._util.suggest import nearest
from sal_fast.errors import InputError
from sal_fast.models.backbone import (
    Backbone,
    ResNet,
    Rgb,
    Spec,
    Swin,
    Timm,
    Torchvision,
    Weights,
    kept_by_hub,
)
from sal_fast.probes import Place

RESNETS = ("resnet", "resnext", "wide_resnet")  # how the names of torchvision's ResNets begin
AUXILIARY = ("googlenet", "inception_v3")
HUB = ("hf-hub:", "hf_hub:", "local-dir:")  # how timm's names of places begin
CLASS_TOKEN = ("token", "map")  # timm's ways of pooling that have no map for each class


class Watched(Backbone):
    """A network that is run as a whole; its features and the input of its head are watched."""

    cut = False

    def __init__(self, name: str, *rest: Any) -> None:
        super().__init__(name, *rest)
        self._places: dict[tuple[int, ...], Place] = {}

    def head_name(self, net: nn.Module) -> str:
        """The dotted name of the last linear layer."""
        names = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
        if not names:
            raise InputError(f"network {self.name}: it has no linear layer that makes its logits")
        return names[-1]

    def place(self, net: nn.Module, shape: tuple[int, ...], device: torch.device) -> Place:
        """Where the features of a network are, for images of a shape (3, H, W).

        Raises InputError for a network without maps, or without a linear layer that makes its logits.
        """
        if shape not in self._places:
            images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(device)
            try:
                found = probes.find(net, images)
            except (ValueError, TypeError, RuntimeError, AssertionError) as error:
                raise InputError(
                    f"network {self.name} at {shape[1]}x{shape[2]} pixels: {str(error).splitlines()[0]}"
                ) from None
            if found.head != self.head_name(net):
                raise InputError(
                    f"network {self.name}: its logits are not the output of one linear layer; take another "
                    f"network, or write a plug-in around this one (docs/plugins.md)"
                )
            self._places[shape] = found
        return self._places[shape]


class TorchvisionNetwork(Watched, Torchvision):
    """A network of torchvision, without the auxiliary heads that some have for training."""

    def __call__(self, classes: int) -> nn.Module:
        options = {"aux_logits": False, "init_weights": True} if self.name in AUXILIARY else {}
        made: nn.Module = torchvision.models.get_model(
            self.name, weights=None, num_classes=classes, **options
        )
        return made


class TimmNetwork(Watched, Timm):
    """A network of timm, of the Hugging Face hub, or of a folder with timm's config.json.

    A transformer that classifies by its class token, or by attention, is made so that it averages its patch
    tokens: then each class has a map.
    """

    def __init__(self, name: str, full_name: str, image_size: int = 224) -> None:
        super().__init__(name, full_name)
        self.image_size = image_size

    def at(self, image_size: int) -> Backbone:
        return _sized(self.name, self.full_name, image_size)

    def __call__(self, classes: int) -> nn.Module:
        return self._made(num_classes=classes)

    def _made(self, **options: Any) -> nn.Module:
        takes = inspect.signature(type(self._plain).__init__).parameters
        if "img_size" in takes:
            options["img_size"] = self.image_size
        if "global_pool" in takes and getattr(self._plain, "global_pool", "") in CLASS_TOKEN:
            options |= {"global_pool": "avg"} | ({"fc_norm": False} if "fc_norm" in takes else {})
        return self._create(f" at --image-size {self.image_size}", **options)

    @functools.cached_property
    def _plain(self) -> nn.Module:
        """The network as timm makes it by itself, without memory for its weights."""
        with torch.device("meta"):
            return self._create()

    def _create(self, where: str = "", **options: Any) -> nn.Module:
        import timm

        try:
            made: nn.Module = timm.create_model(self.full_name, **options)
        except Exception as error:  # of many kinds: timm asserts, builds and downloads
            raise InputError(f"network {self.name}{where}: timm cannot make it ({error})") from None
        return made

    @property
    def normalisation(self) -> tuple[Rgb, Rgb]:
        config: Any = self._plain.pretrained_cfg
        return tuple(config["mean"]), tuple(config["std"])

    def weights(self) -> dict[str, Weights]:
        """The weights of the hub or the folder, or those of the name's tag, or of every tag without one."""
        if self.full_name.startswith(HUB):
            return {"DEFAULT": Weights(self.full_name, self.pretrained, self.kept)}
        return super().weights()

    def _named(self, full_name: str) -> Timm:
        return type(self)(self.name, full_name, self.image_size)

    def kept(self) -> Path | None:
        """The file of pretrained weights on this machine, or the folder that the name stands for."""
        place, _, name = self.full_name.partition(":")
        if place == "local-dir":
            return Path(name)
        return kept_by_hub(name) if self.full_name.startswith(HUB) else super().kept()

    def pretrained(self) -> Mapping[str, Tensor]:
        """The state dict of pretrained weights, for images of `image_size`."""
        with torch.random.fork_rng(devices=[]):  # timm makes a random network first
            own = {} if self.full_name.startswith(HUB) else self._from_file()
            return self._made(pretrained=True, pretrained_strict=False, **own).state_dict()


def network(arch: Spec) -> Backbone:
    """The backbone that a name, a `module:object` or a callable stands for.

    A name that nobody registers is looked for in torchvision and timm. Raises InputError if neither has it,
    and for an object that is not callable.
    """
    if isinstance(arch, str) and not plugins.is_known("network", arch):
        return named(arch)
    found = plugins.load("network", arch) if isinstance(arch, str) else arch
    if isinstance(found, Backbone):
        return found
    name = arch if isinstance(arch, str) else plugins.described(arch)
    if not callable(found):
        raise InputError(f"network {name}: expected a function f(classes) -> nn.Module, got {found!r}")
    return _FromOutside(name, found)


class _FromOutside(Backbone):
    """A callable that returns modules as the head of this file describes them."""

    def __init__(self, name: str, make: Callable[[int], nn.Module]) -> None:
        super().__init__(name)
        self._make = make

    def __call__(self, classes: int) -> nn.Module:
        net = self._make(classes)
        head, features = getattr(net, "head", None), getattr(net, "features", None)
        if not isinstance(net, nn.Module) or not isinstance(head, nn.Linear) or not callable(features):
            raise InputError(
                f"network {self.name}: expected an nn.Module with features(images) and with a head, "
                f"an nn.Linear, got {type(net).__name__}"
            )
        if head.out_features != classes:
            raise InputError(
                f"network {self.name}: expected a head with {classes} outputs, got {head.out_features}"
            )
        return net


@functools.cache
def named(name: str) -> Backbone:
    """The network that torchvision or timm knows by this name.

    If both do, it is torchvision's; a tag, as in `convnext_tiny.fb_in1k`, makes it timm's. Raises InputError
    for an unknown name; the message suggests the nearest.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name in known:
        if name.startswith(RESNETS):
            return ResNet(name)
        return Swin(name) if name.startswith("swin") else TorchvisionNetwork(name)
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        name = f"local-dir:{folder.resolve()}"
    try:
        import timm
    except ImportError:
        raise InputError(
            f'{_unknown(name, known)}; timm is not installed: pip install "sal-fast[timm]"'
        ) from None
    if name.startswith(HUB) or timm.is_model(name):
        return _sized(name, name, 224)
    raise InputError(_unknown(name, [*known, *timm.list_models()]))


@functools.cache
def _sized(name: str, full_name: str, image_size: int) -> TimmNetwork:
    return TimmNetwork(name, full_name, image_size)


def _unknown(name: str, known: Sequence[str]) -> str:
    close = nearest(name, known)
    return (
        f"unknown network {name!r}{f'; did you mean {close!r}?' if close else ''} (expected a network of "
        f"torchvision or timm, hf-hub:NAME, a folder with timm's config.json, or file.py:object)"
    )
