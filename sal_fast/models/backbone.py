"""Networks: all that the package asks of one, and those whose parts it knows.

A network of your own needs no more than a function (or a class) that takes the number of classes and returns
an `nn.Module` with two attributes:

* `features(images)` takes images `[B, 3, H, W]`, normalised as ImageNet's, and returns a floating tensor
  `[B, C, h, w]`. A network of tokens, or one with channels last, permutes them itself;
* `head`, an `nn.Linear` from C features to the classes. The package averages the features over all pixels
  and calls the head itself, so the module needs no `forward`.

It is named by `--arch file.py:function`, by `--arch package.module:function`, or by the name of an entry
point of the group `sal_fast.networks`. In Python, `models.build` also takes the function. A network that can
do more, such as download weights by name, is an instance of a subclass of `Backbone`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from sal_fast._util.suggest import nearest
from sal_fast._util.words import MEAN, STD
from sal_fast.errors import InputError
from sal_fast.probes import Place

Spec = str | Callable[[int], nn.Module]
"""A network: its name, `module:object`, or the callable itself, which may be a `Backbone`."""
Rgb = tuple[float, float, float]
HUB_FILE = "pytorch_model.bin"  # the file of weights in a repository of the Hugging Face hub
FEATURES = "features"  # the name of the layer that is pooled


class Weights(NamedTuple):
    """Weights that a name stands for.

    url: the address they are downloaded from. read: what reads them, after a download if need be. kept: the
    file that an earlier download left on this machine, or None.
    """

    url: str
    read: Callable[[], Mapping[str, Tensor]]
    kept: Callable[[], Path | None] = lambda: None


class Backbone:
    """A network architecture. The methods here serve a module as the head of this file describes it.

    name: for messages. library: the distribution that it comes from, whose version a run records, or None.
    cut: True if `features` runs a part of the network, and the package averages and calls the head itself.
    head: the dotted name of the linear head. strides: the output strides, in pixels per feature, that
    `set_output_stride` can set; empty where the stride is fixed.
    """

    library: str | None = None
    cut = True
    head = "head"
    strides: tuple[int, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, classes: int) -> nn.Module:
        """A network with `classes` outputs, its weights drawn from torch's global random numbers."""
        raise NotImplementedError

    def at(self, image_size: int) -> Backbone:
        """The backbone for images of `image_size` pixels a side; the same for all, where any size will do."""
        return self

    def head_name(self, net: nn.Module) -> str:
        """The dotted name of the linear head."""
        return self.head

    @property
    def normalisation(self) -> tuple[Rgb, Rgb]:
        """The mean and the deviation of images in 0 to 1, by which the network's images are normalised.

        They are ImageNet's, unless the network's pretrained weights come with others.
        """
        return MEAN, STD

    def check_installed(self) -> None:
        """Raise InputError if the network's library is missing."""

    def features(self, net: Any, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> features [B, C, h, w], the input of the global average pool."""
        return net.features(images)

    def place(self, net: nn.Module, shape: tuple[int, ...], device: torch.device) -> Place:
        """Where the features of a network that is not cut are, for images of a shape (3, H, W)."""
        raise NotImplementedError

    def maps(self, layer: nn.Module, output: Tensor) -> Tensor:
        """Rearrange the output of one of the network's modules into [B, C, h, w]."""
        return output

    def example(self, image_size: int, device: torch.device) -> Tensor:
        """An input of one image, all zero, which shows the shapes of features."""
        return torch.zeros(1, 3, image_size, image_size, device=device)

    def aliases(self, net: Any) -> dict[str, str]:
        """Other names of layers: each stands for a module's dotted name, or for `features`."""
        return {}

    def layer(self, net: nn.Module, name: str) -> str:
        """The dotted name of a module of the network, or `features`, from that name or an alias.

        Raises InputError with the nearest name if the network has no such layer.
        """
        names, aliases = [known for known, _ in net.named_modules() if known], self.aliases(net)
        meant = aliases.get(name, name)
        if meant == FEATURES or meant in names:
            return meant
        words = [FEATURES, *(alias for alias, layer in aliases.items() if layer in (FEATURES, *names))]
        raise InputError(
            f"--cam-layer {name!r}: {self.name} has no such layer; the nearest is "
            f"{nearest(meant, names, cutoff=0)!r} (expected {', '.join(words)} or a module's "
            f"dotted name)"
        )

    def set_output_stride(self, net: Any, stride: int) -> None:
        """Change a new network so that a feature covers stride x stride pixels; InputError if it cannot."""
        raise InputError(
            f"--output-stride {stride}: {self.name} has a fixed stride; use a ResNet or leave it out"
        )

    def weights(self) -> dict[str, Weights]:
        """The weights that can be had by name."""
        return {}


class Torchvision(Backbone):
    """A network of torchvision, by its name there."""

    library = "torchvision"

    def __call__(self, classes: int) -> nn.Module:
        made: nn.Module = torchvision.models.get_model(self.name, weights=None, num_classes=classes)
        return made

    def weights(self) -> dict[str, Weights]:
        known = torchvision.models.get_model_weights(self.name).__members__
        return {
            name: Weights(
                one.url,
                partial(one.get_state_dict, progress=True, check_hash=True),
                partial(kept_by_torch, one.url),
            )
            for name, one in known.items()
        }


class ResNet(Torchvision):
    """A ResNet of torchvision. Its features are the output of `layer4`."""

    head = "fc"
    strides = (32, 16, 8, 4)

    def features(self, net: Any, images: Tensor) -> Tensor:
        for module in list(net.children())[:-2]:  # all but the pool and the head
            images = module(images)
        return images

    def aliases(self, net: Any) -> dict[str, str]:
        """`conv3` is the last block's, before its batch norm: the layer that the public CYBORG code hooks."""
        return {"layer4": FEATURES, "conv3": f"layer4.{len(net.layer4) - 1}.conv3"}

    def set_output_stride(self, net: Any, stride: int) -> None:
        """Set the strides of the last stages to 1, without dilation."""
        if stride not in self.strides:
            known = ", ".join(map(str, self.strides))
            raise InputError(f"--output-stride {stride}: expected one of {known}")
        for stage, reaches in ((net.layer4, 32), (net.layer3, 16), (net.layer2, 8)):
            if reaches <= stride:
                break
            for module in stage[0].modules():
                if isinstance(module, nn.Conv2d):
                    module.stride = (1, 1)


class Swin(Torchvision):
    """A Swin transformer of torchvision. Its features are the output of its last norm."""

    def features(self, net: Any, images: Tensor) -> Tensor:
        return self.maps(net.norm, net.norm(net.features(images)))

    def maps(self, layer: nn.Module, output: Tensor) -> Tensor:
        """All modules but the convolution have channels last."""
        last = output.ndim == 4 and not isinstance(layer, nn.Conv2d)
        return output.permute(0, 3, 1, 2) if last else output


class Timm(Backbone):
    """A network of timm; `full_name` is timm's own name for it."""

    library = "timm"
    head = "fc"

    def __init__(self, name: str, full_name: str) -> None:
        super().__init__(name)
        self.full_name = full_name

    def __call__(self, classes: int) -> nn.Module:
        import timm

        made: nn.Module = timm.create_model(self.full_name, num_classes=classes)
        return made

    def check_installed(self) -> None:
        if find_spec("timm") is None:
            raise InputError(f'{self.name} is timm\'s, which is not installed; pip install "sal-fast[timm]"')

    def features(self, net: Any, images: Tensor) -> Tensor:
        return net.forward_features(images)

    @property
    def normalisation(self) -> tuple[Rgb, Rgb]:
        import timm

        config = timm.get_pretrained_cfg(self.full_name)
        return (MEAN, STD) if config is None else (config.mean, config.std)

    def pretrained(self) -> Mapping[str, Tensor]:
        """The state dict of pretrained weights."""
        import timm

        with torch.random.fork_rng(devices=[]):  # timm makes a random network first
            made = timm.create_model(self.full_name, pretrained=True, **self._from_file())
        state: Mapping[str, Tensor] = made.state_dict()
        return state

    def kept(self) -> Path | None:
        """The file of pretrained weights that an earlier download left on this machine, or None."""
        import timm

        about = timm.get_pretrained_cfg(self.full_name)
        if not about.hf_hub_id:
            return kept_by_torch(about.url or "")
        return kept_by_hub(about.hf_hub_id, about.hf_hub_filename or HUB_FILE)

    def _from_file(self) -> dict[str, Any]:
        """What makes timm take the file that is here. By itself it would ask the hub for a newer one."""
        import timm

        file, about = self.kept(), timm.get_pretrained_cfg(self.full_name)
        if file is None or about.custom_load == "hf":  # the network itself reads the hub's file
            return {}
        # the address may be of a file of another kind, which only the network itself can read
        plain = {"custom_load": False} if about.hf_hub_id else {}
        return {"pretrained_cfg_overlay": {"file": str(file), **plain}}

    def weights(self) -> dict[str, Weights]:
        import timm

        found = {}
        for name in (self.full_name, *timm.list_pretrained(self.full_name)):
            about, own = timm.get_pretrained_cfg(name), self._named(name)
            url = about.url or f"https://huggingface.co/{about.hf_hub_id}"
            found[name.partition(".")[2] or "DEFAULT"] = Weights(url, own.pretrained, own.kept)
        # a name with a tag, such as convnext_tiny.fb_in1k, says which weights are its own
        return {"DEFAULT": next(iter(found.values())), **found}

    def _named(self, full_name: str) -> Timm:
        """The same network with another tag of its weights."""
        return type(self)(self.name, full_name)


def kept_by_torch(url: str) -> Path | None:
    """The file that torch downloaded from an address, if it did."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    return path if url and path.is_file() else None


def kept_by_hub(repository: str, name: str = HUB_FILE) -> Path | None:
    """The file of weights that was downloaded from a repository of the Hugging Face hub, if one was."""
    from huggingface_hub import try_to_load_from_cache

    for file in (name.replace(HUB_FILE, "model.safetensors"), name):  # timm prefers the first
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None


resnet18, resnet34, resnet50 = ResNet("resnet18"), ResNet("resnet34"), ResNet("resnet50")
swin_t = Swin("swin_t")
xception = Timm("xception", "legacy_xception")
