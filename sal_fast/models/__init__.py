"""torchvision backbones cut into features and a linear head."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torchvision
from torch import Tensor, nn

from sal_fast.errors import InputError
from sal_fast.models import weights as weight_files

Arch = Literal["resnet18", "resnet34", "resnet50", "swin_t"]
ARCHS: tuple[Arch, ...] = get_args(Arch)
OUTPUT_STRIDES = (32, 16, 8, 4)


class Classifier(nn.Module):
    """features -> global average pool -> linear head, over a torchvision network.

    `net` keeps torchvision's own names, so its state dict loads into torchvision and the other way round.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    @property
    def head(self) -> nn.Linear:
        head = self.net.head if isinstance(self.net, torchvision.models.SwinTransformer) else self.net.fc
        assert isinstance(head, nn.Linear)
        return head

    def features(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C, h, w]: `layer4`'s output, or Swin's after its last norm."""
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
        return self.head(features.mean((-2, -1))), features


def build(
    arch: Arch, classes: int, *, weights: str = "none", output_stride: int = 32, seed: int = 0
) -> Classifier:
    """A network with `classes` outputs, the same for the same seed.

    Args:
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
    return Classifier(net)


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
        features = model.eval().features(torch.zeros(1, 3, image_size, image_size, device=device))
        return features.shape[-2], features.shape[-1]
    finally:
        model.train(training)
