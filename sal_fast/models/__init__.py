"""Backbones of torchvision, and timm's Xception, cut into features and a linear head."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, get_args

import torch
import torchvision
from torch import Tensor, nn

from sal_fast import ops, probes
from sal_fast._util.words import CAM_CLASSES as CAM_CLASSES
from sal_fast._util.words import PRECISIONS as PRECISIONS
from sal_fast._util.words import CamClass as CamClass
from sal_fast._util.words import Precision as Precision
from sal_fast.errors import InputError
from sal_fast.models import weights as weight_files
from sal_fast.models.cam_layer import FEATURES, Logits, Watched, resolve

Arch = Literal["resnet18", "resnet34", "resnet50", "swin_t", "xception"]
ARCHS: tuple[Arch, ...] = get_args(Arch)
OUTPUT_STRIDES = (32, 16, 8, 4)


class Look(NamedTuple):
    """logits [B, K]; cam [B, h, w], float32 (float64 of a float64 network); classes int64 [B], the CAM's."""

    logits: Tensor
    cam: Tensor
    classes: Tensor


class Classifier(nn.Module):
    """features -> global average pool -> linear head, over a network of torchvision or timm.

    `net` keeps that library's own names, so its state dict loads there and the other way round.

    Args:
        precision: of the network's products: float32, or bfloat16 by autocast (weights stay as they are, the
            features become bfloat16, the head's result stays float32); auto: bfloat16 on a GPU that has it.
        compiled: run the network through torch.compile, on a GPU as CUDA graphs.
        cam_layer: `features`, or the dotted name of the module of `net` that CAMs are made of.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        precision: Precision = "float32",
        compiled: bool = False,
        cam_layer: str = FEATURES,
    ) -> None:
        super().__init__()
        if compiled and cam_layer != FEATURES:
            raise InputError(
                f"--cam-layer {cam_layer} looks into the network, which --compile closes; leave one out"
            )
        self.net, self.precision, self.compiled, self.cam_layer = net, precision, compiled, cam_layer
        self._run: Callable[[Tensor], Tensor] = self._features
        if compiled:
            self._run = torch.compile(self._features, mode="reduce-overhead")

    @property
    def head(self) -> nn.Linear:
        head = self.net.head if isinstance(self.net, torchvision.models.SwinTransformer) else self.net.fc
        assert isinstance(head, nn.Linear)
        return head

    def features(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C, h, w]: what is pooled: `layer4`'s output, Swin's after its last norm."""
        if images.is_cuda:  # tensor cores read it so
            images = images.contiguous(memory_format=torch.channels_last)
        if resolved(self.precision, images.device) == "float32":
            return self._run(images)
        with torch.autocast(images.device.type, torch.bfloat16):
            return self._run(images)

    def _features(self, images: Tensor) -> Tensor:
        if isinstance(self.net, torchvision.models.SwinTransformer):
            return self.net.norm(self.net.features(images)).permute(0, 3, 1, 2)
        if not isinstance(self.net, torchvision.models.ResNet):
            timms: Any = self.net
            features: Tensor = timms.forward_features(images)
            return features
        for name, module in self.net.named_children():
            if name == "avgpool":
                break
            images = module(images)
        return images

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K] and features [B, C, h, w]."""
        features = self.features(images)
        return self.head(pooled(features)), features

    def look(self, images: Tensor, target: Tensor | None = None, *, probe: ops.Probe = "cam") -> Look:
        """Logits, and the map of one class per image, of one forward pass.

        Of the features: `ops.cam_head`, without a backward pass. Of another layer's output F: `W[c] . F` for
        the probe `cam` (as CYBORG does, with as many channels as the head has inputs), and autograd from the
        logits back to the layer for the others (`sal_fast.probes.explain`; differentiable, too).

        Args:
            target: int64 [B], whose map; None: the predicted class's, the lowest on a tie.
        """
        head = self.head
        if self.cam_layer == FEATURES:
            seen = ops.cam_head(self.features(images), head.weight, head.bias, target, probe=probe)
            return Look(seen.logits, seen.cam, seen.classes)
        watched = Watched(self.net, self.cam_layer)
        if probe != "cam":
            model, to_maps = Logits(self), watched.to_maps
            found = probes.explain(model, watched.layer, images, target, probe=probe, to_maps=to_maps)
            return Look(found.logits, found.maps, found.classes)
        with watched.hooked():
            logits, _ = self(images)
        classes = logits.detach().argmax(1) if target is None else target
        return Look(logits, ops.cam(watched.maps, head.weight, classes), classes)


def pooled(features: Tensor) -> Tensor:
    """The global average, [B, C]; float32 for less precise ones."""
    half = features.dtype in (torch.float16, torch.bfloat16)
    return features.mean((-2, -1), dtype=torch.float32 if half else None)


def resolved(precision: Precision, device: torch.device) -> Precision:
    """auto: bfloat16 on a GPU that has it, else float32."""
    if precision != "auto":
        return precision
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def build(
    arch: str,
    classes: int,
    *,
    weights: str = "none",
    output_stride: int = 32,
    seed: int = 0,
    precision: Precision = "float32",
    compiled: bool = False,
    cam_layer: str = FEATURES,
) -> Classifier:
    """A network with `classes` outputs, the same for the same seed.

    Args:
        precision, compiled: see `Classifier`.
        weights: `none` (random), a weights name of torchvision (`IMAGENET1K_V2`) or timm (`tf_in1k`), or
            `DEFAULT`, downloaded once; or a .safetensors, .pth or .pt file. A head of another size is left
            random.
        output_stride: pixels per feature, for small images: the last stages' strides are set to 1, without
            dilation. ResNets only.
        cam_layer: what CAMs are made of: `features`, a module's dotted name, or a ResNet's `conv3`, the last
            block's before its batch norm.

    Raises InputError for weights that do not fit, strides and layers that cannot be had, and Xception without
    timm.
    """
    check_installed(arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if arch == "xception":
            import timm

            net = timm.create_model(weight_files.XCEPTION, num_classes=classes)
        else:
            net = torchvision.models.get_model(arch, weights=None, num_classes=classes)
    cam_layer = resolve(net, arch, cam_layer)
    if output_stride != 32:
        _set_output_stride(arch, net, output_stride)
    if weights != "none":
        weight_files.load_into(net, arch, weights)
    return Classifier(net, precision=precision, compiled=compiled, cam_layer=cam_layer)


def check_installed(arch: str) -> None:
    """InputError where a network's library is missing."""
    if arch == "xception" and find_spec("timm") is None:
        raise InputError('xception is timm\'s, which is not installed; pip install "sal-fast[xception]"')


def _set_output_stride(arch: str, net: nn.Module, output_stride: int) -> None:
    if not isinstance(net, torchvision.models.ResNet):
        raise InputError(
            f"--output-stride {output_stride}: {arch} has a fixed stride of 32; use a ResNet or leave it out"
        )
    if output_stride not in OUTPUT_STRIDES:
        raise InputError(
            f"--output-stride {output_stride}: expected one of {', '.join(map(str, OUTPUT_STRIDES))}"
        )
    for stage, reaches in ((net.layer4, 32), (net.layer3, 16), (net.layer2, 8)):
        if reaches <= output_stride:
            break
        for module in stage[0].modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)


@torch.no_grad()
def map_shape(model: Classifier, image_size: int, layer: str | None = None) -> tuple[int, int, int]:
    """(C, h, w) of the output that CAMs are made of, or of `layer`'s, for an image_size x image_size image.

    Raises InputError where that output is no map.
    """
    layer = layer or model.cam_layer
    image = torch.zeros(1, 3, image_size, image_size, device=model.head.weight.device)
    training = model.training
    model.eval()
    try:
        if layer == FEATURES:
            maps = model._features(image)
        else:
            watched = Watched(model.net, layer)
            with watched.hooked():
                model._features(image)
            maps = watched.maps
        return maps.shape[1], maps.shape[2], maps.shape[3]
    finally:
        model.train(training)


def feature_size(model: Classifier, image_size: int) -> tuple[int, int]:
    """(h, w) of the CAM of an image_size x image_size image."""
    return map_shape(model, image_size)[1:]
