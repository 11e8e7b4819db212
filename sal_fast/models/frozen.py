"""Networks of which the head alone is trained, on features that are computed once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sal_fast.models import Classifier
from sal_fast.models.backbone import Backbone


class FrozenNet(nn.Module):
    """A linear head on the mean of features that stay as they are.

    Without `body` it takes features [B, C, h, w]. With `body`, a classifier whose own head is not used, it
    takes images. The body is always in eval mode, and its weights get no gradient.
    """

    def __init__(self, head: nn.Linear, body: Classifier | None = None) -> None:
        super().__init__()
        self.head, self.body = head, body
        if body is not None:
            body.eval().requires_grad_(False)

    def features(self, seen: Tensor) -> Tensor:
        """The features of images; or, without a body, the features that are given."""
        return seen if self.body is None else self.body.features(seen)

    def train(self, mode: bool = True) -> FrozenNet:
        """Set the mode of the head. The body stays in eval mode."""
        super().train(mode)
        if self.body is not None:
            self.body.eval()
        return self


class _Frozen(Backbone):
    """The backbone of a `FrozenNet` without a body."""

    def __init__(self, name: str, shape: tuple[int, int, int]) -> None:
        super().__init__(name)
        self._shape = shape

    def example(self, image_size: int, device: torch.device) -> Tensor:
        """Features of one image, all zero: float32 [1, C, h, w]."""
        return torch.zeros(1, *self._shape, device=device)


def on_features(name: str, shape: tuple[int, int, int], classes: int, seed: int) -> Classifier:
    """A classifier of features of `shape` (C, h, w), the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(shape[0], classes)
    return Classifier(FrozenNet(head), _Frozen(name, shape))


def with_body(head: nn.Linear, body: Classifier) -> Classifier:
    """A classifier of images, from a head on features and the network that gave these."""
    return Classifier(FrozenNet(head, body), Backbone(body.backbone.name))
