"""torchvision backbones cut into features and a linear head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torchvision
from torch import Tensor, nn

from sal_fast.errors import InputError
from sal_fast.models import weights as weight_files

Arch = Literal["resnet18", "resnet34", "resnet50", "swin_t"]
ARCHS: tuple[Arch, ...] = get_args(Arch)
OUTPUT_STRIDES = (32, 16, 8, 4)
Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class Classifier(nn.Module):
    """features -> global average pool -> linear head, over a torchvision network.

    `net` keeps torchvision's own names, so its state dict loads into torchvision and the other way round.

    Args:
        precision: of the network's products: float32, or bfloat16 by autocast (weights stay as they are, the
            features become bfloat16, the head's result stays float32); auto: bfloat16 on a GPU that has it.
        compiled: run the network through torch.compile, on a GPU as CUDA graphs.
    """

    def __init__(self, net: nn.Module, *, precision: Precision = "float32", compiled: bool = False) -> None:
        super().__init__()
        self.net, self.precision, self.compiled = net, precision, compiled
        self._run: Callable[[Tensor], Tensor] = self._features
        if compiled:
            self._run = torch.compile(self._features, mode="reduce-overhead")

    @property
    def head(self) -> nn.Linear:
        head = self.net.head if isinstance(self.net, torchvision.models.SwinTransformer) else self.net.fc
        assert isinstance(head, nn.Linear)
        return head

    def features(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C, h, w]: `layer4`'s output, or Swin's after its last norm."""
        if images.is_cuda:  # tensor cores read it so
            images = images.contiguous(memory_format=torch.channels_last)
        if resolved(self.precision, images.device) == "float32":
            return self._run(images)
        with torch.autocast(images.device.type, torch.bfloat16):
            return self._run(images)

    def _features(self, images: Tensor) -> Tensor:
        if isinstance(self.net, torchvision.models.SwinTransformer):
            return self.net.norm(self.net.features(images)).permute(0, 3, 1, 2)
        for name, module in self.net.named_children():
            if name == "avgpool":
                break
            images = module(images)
        return images

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K] and features [B, C, h, w]."""
        features = self.features(images)
        return self.head(pooled(features)), features


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
) -> Classifier:
    """A network with `classes` outputs, the same for the same seed.

    Args:
        precision, compiled: see `Classifier`.
        weights: `none` (random), a torchvision weights name (`IMAGENET1K_V2`, `DEFAULT`; downloaded once), or
            a .safetensors, .pth or .pt file. A head of another size is left random.
        output_stride: pixels per feature, for small images: the last stages' strides are set to 1, without
            dilation. ResNets only.

    Raises InputError for weights that do not fit and strides that cannot be had.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = torchvision.models.get_model(arch, weights=None, num_classes=classes)
    if output_stride != 32:
        _set_output_stride(arch, net, output_stride)
    if weights != "none":
        weight_files.load_into(net, arch, weights)
    return Classifier(net, precision=precision, compiled=compiled)


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
def feature_size(model: Classifier, image_size: int) -> tuple[int, int]:
    """(h, w) of the features of an image_size x image_size image."""
    device = model.head.weight.device
    training = model.training
    try:
        features = model.eval()._features(torch.zeros(1, 3, image_size, image_size, device=device))
        return features.shape[-2], features.shape[-1]
    finally:
        model.train(training)
