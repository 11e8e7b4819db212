"""A network that trains in a blink, with 4 x 4 features at 32 x 32 pixels. Tests load it as a plug-in."""

from __future__ import annotations

from torch import Tensor, nn


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Small(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer1, self.layer2 = block(3, 16, 2), block(16, 32, 2)
        self.layer3, self.layer4 = block(32, 32, 2), block(32, 64, 1)
        self.head = nn.Linear(64, classes)

    def features(self, images: Tensor) -> Tensor:
        return self.layer4(self.layer3(self.layer2(self.layer1(images))))


class Smaller(nn.Module):
    """Another network, with 4 x 4 features of 24 channels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 24, 4), block(24, 24, 2))
        self.head = nn.Linear(24, classes)

    def features(self, images: Tensor) -> Tensor:
        return self.body(images)
