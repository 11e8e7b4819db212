"""A trained model as an object: `SalModel`, which `load_model` reads from a run, its folder, or a file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sal_fast import models, ops
from sal_fast._util.devices import torch_device
from sal_fast._util.suggest import suggest
from sal_fast._util.words import PROBES
from sal_fast.data import augment
from sal_fast.errors import InputError
from sal_fast.models import Classifier, frozen, weights
from sal_fast.trained import folder, metadata
from sal_fast.trained.pictures import Picture, stacked


class SalModel(nn.Module):
    """A trained classifier with all that is needed to use it. `sal_fast.load_model` makes one.

    It computes in float32, and is in eval mode when it has been loaded.

    Attributes:
        classifier: the network, cut into features and head (`sal_fast.models.Classifier`).
        metadata: what its weights file says (`sal_fast.trained.metadata`).
        classes: the names of the classes, in the order of the logits.
        network: the network's name, as `--arch` takes it.
        image_size: S, the side in pixels of its input. output_stride: pixels for each feature.
        normalisation: the mean and the standard deviation of red, green and blue in 0 to 1.
        cam_layer, probe: the layer and the kind of its saliency maps.
    """

    def __init__(self, classifier: Classifier, metadata: Mapping[str, Any]) -> None:
        super().__init__()
        self.classifier, self.metadata = classifier, dict(metadata)
        self.classes: list[str] = list(metadata["classes"])
        self.network: str = metadata["network"]
        self.image_size: int = metadata["image_size"]
        self.output_stride: int = metadata["output_stride"]
        mean, std = (tuple(metadata["normalisation"][name]) for name in ("mean", "std"))
        self.normalisation = mean, std
        self.cam_layer: str = metadata["cam_layer"]
        self.probe: ops.Probe = metadata["probe"]
        self._color = torch.from_numpy(augment.normalising(mean, std)).float()
        taking = classifier.net.body if isinstance(classifier.net, frozen.FrozenNet) else classifier
        assert taking is not None
        taking.given = taking.backbone.normalisation  # `preprocess` gives it images as the network wants them

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return self.classifier.head.weight.device

    def preprocess(self, images: Picture | Sequence[Picture]) -> Tensor:
        """Images as the network sees them: float32 [B, 3, S, S] on the model's device.

        They are resized as the run resized its test images, and normalised.

        Args:
            images: one image or several. An image is the path of a file, an image of Pillow, uint8 [H, W, 3]
                or [H, W] of numpy, or uint8 [3, H, W] or [1, H, W] of torch. A batch of arrays, uint8
                [B, H, W, 3] of numpy or [B, 3, H, W] of torch, is taken, too.

        Raises InputError for a file that cannot be read, and for arrays of another type or shape.
        """
        pixels = stacked(images, self.metadata["stored_size"], self.metadata["white"])
        return self.normalised(pixels.to(self.device))

    def normalised(self, pixels: Tensor) -> Tensor:
        """Resize whole images from the run's stored size to the network's input, and normalise them.

        Args:
            pixels: uint8 [B, s, s, 3], where s is `metadata["stored_size"]`.

        Returns float32 [B, 3, S, S] on the device of the pixels.
        """
        self._color = self._color.to(pixels.device)
        return ops.crop_images(pixels, None, size=self.image_size, color=self._color)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float32 [B, K], of images [B, 3, S, S] that `preprocess` gave."""
        logits: Tensor = self.classifier(self._checked(x))[0]
        return logits

    @torch.no_grad()
    def explain(
        self,
        x: Tensor,
        class_: str | int | Tensor | None = None,
        probe: ops.Probe | None = None,
    ) -> Tensor:
        """Saliency maps: how much each place of an image speaks for a class.

        They are raw values at the resolution of the layer; `ops.minmax_normalize` and `ops.overlay` make
        pictures of them.

        Args:
            x: images [B, 3, S, S] that `preprocess` gave.
            class_: the name or the number of a class for all images; int64 [B], a class for each; int64
                [B, T], T classes for each; None for the predicted class of each.
            probe: `cam`, `gradcam`, `gradcam++` or `hirescam`; None for the one that the run used.

        Returns:
            float32 [B, h, w], or [B, T, h, w] for T classes of each image.

        Raises:
            InputError: an unknown class or probe, or images of another shape or type.
        """
        if probe is not None and probe not in PROBES:
            raise InputError(f"unknown probe {probe!r}{suggest(probe, PROBES)}")
        x = self._checked(x)
        seen = self.classifier.look(x, self._target(class_, x), probe=probe or self.probe)
        return seen.cam.float()

    def class_number(self, class_: str | int) -> int:
        """The number of a class, from its name or number. Raises InputError for an unknown one."""
        if isinstance(class_, str):
            if class_ not in self.classes:
                raise InputError(f"unknown class {class_!r}{suggest(class_, self.classes)}")
            return self.classes.index(class_)
        if not 0 <= class_ < len(self.classes):
            raise InputError(
                f"class {class_}: expected a number from 0 to {len(self.classes) - 1}, or a name"
            )
        return class_

    def _target(self, class_: str | int | Tensor | None, x: Tensor) -> Tensor | None:
        if class_ is None or isinstance(class_, Tensor):
            if class_ is not None and (
                class_.dtype != torch.int64 or class_.ndim not in (1, 2) or len(class_) != len(x)
            ):
                raise InputError(
                    f"expected the classes of {len(x)} images as int64 [B] or [B, T], got {class_.dtype} "
                    f"{list(class_.shape)}"
                )
            if class_ is None:
                return None
            if class_.numel():
                self.class_number(int(class_.min()))
                self.class_number(int(class_.max()))
            return class_.to(x.device)
        return torch.full((len(x),), self.class_number(class_), device=x.device)

    def _checked(self, x: Tensor) -> Tensor:
        shape = (3, self.image_size, self.image_size)
        if not isinstance(x, Tensor) or not x.is_floating_point() or tuple(x.shape[1:]) != shape:
            got = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise InputError(
                f"expected floating images [B, 3, {self.image_size}, {self.image_size}], which `preprocess` "
                f"gives, got {got}"
            )
        return x


def load_model(
    path: str | Path,
    device: str = "cpu",
    *,
    network: str | Callable[[int], nn.Module] | None = None,
) -> SalModel:
    """Read a trained model, in eval mode.

    Args:
        path: the folder of a run, finished or not; its folder `model`, or a copy of it; or a .safetensors
            file that a run has written.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, ...
        network: the plug-in that makes the network, if it is no longer where the run found it.

    Raises InputError if there is no model, or if its files are damaged.
    """
    place = torch_device(device)
    about, state, source = folder.opened(Path(path).expanduser())
    model = SalModel(classifier(about, state, str(source), network), about)
    return model.to(place).eval()


def classifier(
    about: Mapping[str, Any],
    state: Mapping[str, Tensor],
    name: str,
    network: models.Spec | None = None,
) -> Classifier:
    """The network with its weights, for images that are normalised as ImageNet's.

    Args:
        about: what the weights file says.
        state: its weights.
        name: what messages call the file.
        network: what makes the network; None stands for the one that the file names.
    """
    backbone = models.network(network or about["network"]).at(about["image_size"])
    classes, stride = len(about["classes"]), about["output_stride"]
    model = models.build(
        backbone,
        classes,
        output_stride=stride if backbone.strides else 32,
        cam_layer=about["cam_layer"],
    )
    head = f"{backbone.head_name(model.net)}."
    there = state.get(f"{head}weight")
    if there is None or len(there) != classes:
        found = "missing" if there is None else f"of {len(there)}"
        raise InputError(
            f"{name}: expected the weights of a whole network with {classes} classes, but {head}weight is "
            f"{found}; name the folder of the run, or its folder {metadata.FOLDER}"
        )
    model.net.load_state_dict(weights.fitting(model.net, backbone, state, name), strict=False)
    if about["train"] == "all":
        return model
    own = nn.Linear(there.shape[1], classes)
    own.load_state_dict({part: state[head + part] for part in ("weight", "bias")})
    return frozen.with_body(own, model)
