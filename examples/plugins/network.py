"""A network: four convolutions for small pictures.

`sal-fast run --data photos/ --arch examples/plugins/network.py:four_convolutions` uses it.
"""

from torch import nn


class FourConvolutions(nn.Module):
    """features [B, 64, H / 8, W / 8], averaged over the picture, go to the head."""

    def __init__(self, classes):
        super().__init__()
        layers = []
        for given, channels, stride in ((3, 16, 1), (16, 32, 2), (32, 64, 2), (64, 64, 2)):
            layers += [nn.Conv2d(given, channels, 3, stride, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(64, classes)

    def features(self, images):
        return self.body(images)


def four_convolutions(classes):
    return FourConvolutions(classes)
