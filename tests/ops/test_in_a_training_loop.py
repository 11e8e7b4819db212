"""The ops in a training loop that is not ours: networks of torchvision, hooks in the order in which Lightning
calls them, autocast, accumulated and scaled gradients, `torch.compile`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
import torchvision
from precision import full
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional

from sal_fast import ops
from sal_fast.ops.cam.reference import cam_head as plain_cam_head
from sal_fast.ops.saliency_loss.reference import saliency_loss as plain_saliency_loss

CLASSES, ALPHA, MAP_SIZE, WINDOW = 4, 0.5, 16, 11
# torch itself warns of both when it is asked to compile
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor
    masks: Tensor
    has_map: Tensor


def batches(count: int) -> list[Batch]:
    draws = torch.Generator().manual_seed(0)
    return [
        Batch(
            torch.rand(4, 3, 64, 64, generator=draws),
            torch.randint(CLASSES, (4,), generator=draws),
            torch.rand(4, 32, 32, generator=draws) > 0.7,
            torch.tensor([True, True, False, True]),
        )
        for _ in range(count)
    ]


class Fused(nn.Module):
    """A network as a user of the ops writes it: a LightningModule without Lightning."""

    def __init__(self, trunk: nn.Module, channels: int) -> None:
        super().__init__()
        self.trunk, self.head = trunk, nn.Linear(channels, CLASSES)
        self.called: list[str] = []

    def loss(self, features: Tensor, batch: Batch) -> Tensor:
        out = ops.cam_head(features, self.head.weight, self.head.bias, batch.labels)
        return ops.cyborg_loss(
            out.logits, out.cam, batch.labels, batch.masks, alpha=ALPHA, has_map=batch.has_map,
            map_size=MAP_SIZE,
        )  # fmt: skip

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.loss(self.trunk(batch.images), batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)

    def on_train_start(self) -> None:
        self.called.append("train starts")

    def on_before_backward(self, loss: Tensor) -> None:
        assert loss.dtype == torch.float32
        self.called.append("backward")

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.called.append("step")


class InTwoTerms(Fused):
    """The same loss, made of `cam`, `saliency_loss` and torch's own cross-entropy."""

    def loss(self, features: Tensor, batch: Batch) -> Tensor:
        logits = self.head(features.mean((2, 3))).float()
        maps = ops.cam(features, self.head.weight, batch.labels)
        saliency = ops.saliency_loss(maps, batch.masks, has_map=batch.has_map, map_size=MAP_SIZE)
        return ALPHA * functional.cross_entropy(logits, batch.labels) + (1 - ALPHA) * saliency


class Plain(Fused):
    """The same loss in plain torch."""

    def loss(self, features: Tensor, batch: Batch) -> Tensor:
        weight, bias, size = self.head.weight, self.head.bias, (MAP_SIZE, MAP_SIZE)
        with torch.autocast("cpu", enabled=False):
            logits, maps, _, _ = plain_cam_head(features, weight, bias, batch.labels, "cam")
            classification = functional.cross_entropy(logits, batch.labels)
            saliency = plain_saliency_loss(maps, batch.masks, batch.has_map, size, WINDOW, "valid", "ssim_l1")
        return ALPHA * classification + (1 - ALPHA) * saliency.mean()


def network(name: str, kind: type[Fused]) -> Fused:
    """A network of torchvision with random weights, and a linear layer behind its average pool."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == "densenet121":
            net = torchvision.models.densenet121(num_classes=1)
            return kind(nn.Sequential(net.features, nn.ReLU()), net.classifier.in_features)
        net = torchvision.models.convnext_tiny(num_classes=1, stochastic_depth_prob=0.0)
        return kind(net.features, net.classifier[2].in_features)


def fit(
    module: Fused,
    twin: Fused,
    given: list[Batch],
    *,
    half: bool,
    accumulate: int = 1,
    scale: float = 1.0,
    compiled: bool = False,
) -> None:
    """Train on every batch once, with the hooks in the order of Lightning's automatic optimisation.

    The twin has the same weights before every step. Its losses and gradients must be the same, up to a
    rounding of the features' dtype, which the trunk spreads. A trunk that is compiled rounds in every layer,
    and normalisation over a few pixels enlarges that; then the gradients of the head are compared.
    """
    of_loss, of_gradients = 1e-5, 0.05 if half else 5e-3
    if compiled:
        of_loss, of_gradients = 1e-2, 0.5 if half else 0.1
    optimizer = module.configure_optimizers()
    module.on_train_start()
    for index, batch in enumerate(given):
        if index % accumulate == 0:
            optimizer.zero_grad()
            twin.zero_grad()
            twin.load_state_dict(module.state_dict())
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss, expected = module.training_step(batch, index), twin.training_step(batch, index)
        torch.testing.assert_close(loss, expected, rtol=of_loss, atol=1e-6)
        module.on_before_backward(loss)
        (loss / accumulate * scale).backward()
        (expected / accumulate).backward()
        if (index + 1) % accumulate == 0:
            for parameter in module.parameters():
                assert parameter.grad is not None
                parameter.grad /= scale
            module.on_before_optimizer_step(optimizer)
            assert gradients(module).isfinite().all()
            ours, others = (gradients(one.head if compiled else one) for one in (module, twin))
            assert others.any()
            assert (ours - others).norm() < of_gradients * others.norm()
            optimizer.step()


def gradients(module: nn.Module) -> Tensor:
    """All of them in one vector."""
    return torch.cat([x.grad.flatten() for x in module.parameters() if x.grad is not None])


networks = pytest.mark.parametrize("name", ["densenet121", "convnext_tiny"])
precisions = pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])


@precisions
@networks
def test_a_training(name: str, half: bool) -> None:
    ours = network(name, Fused)
    fit(ours, network(name, Plain), batches(2), half=half)
    assert ours.called == ["train starts", "backward", "step", "backward", "step"]


@pytest.mark.parametrize("name", ["convnext_tiny", full("densenet121")])
def test_gradients_that_are_accumulated_and_scaled(name: str) -> None:
    """As a gradient scaler does it: the loss is multiplied by 2^16, and the gradients are divided by it."""
    fit(network(name, Fused), network(name, Plain), batches(2), half=False, accumulate=2, scale=2.0**16)


def test_of_two_terms() -> None:
    fit(network("convnext_tiny", InTwoTerms), network("convnext_tiny", Plain), batches(1), half=False)


@pytest.fixture
def graphs(request: pytest.FixtureRequest) -> Iterator[CompileCounterWithBackend]:
    """A compiler that counts the graphs that it is given."""
    torch._dynamo.reset()
    yield CompileCounterWithBackend(request.param)
    torch._dynamo.reset()


@pytest.mark.parametrize("graphs", ["aot_eager"], indirect=True)
@pytest.mark.parametrize(("kind", "half"), [(Fused, False), (Fused, True), (InTwoTerms, False)])
def test_a_compiled_loss(kind: type[Fused], half: bool, graphs: CompileCounterWithBackend) -> None:
    """One graph for all steps: the ops break none, and no step compiles anew."""
    ours = network("convnext_tiny", kind)
    ours.loss = torch.compile(ours.loss, fullgraph=True, backend=graphs)  # type: ignore[method-assign]
    fit(ours, network("convnext_tiny", Plain), batches(2), half=half)
    assert graphs.frame_count == 1


@pytest.mark.full
@pytest.mark.parametrize("graphs", ["inductor"], indirect=True)
@precisions
@networks
def test_a_compiled_network(name: str, half: bool, graphs: CompileCounterWithBackend) -> None:
    """The whole step in one graph."""
    ours = network(name, Fused)
    ours.training_step = torch.compile(ours.training_step, fullgraph=True, backend=graphs)  # type: ignore[method-assign]
    fit(ours, network(name, Plain), batches(2), half=half, compiled=True)
    assert graphs.frame_count == 1
