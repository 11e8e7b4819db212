"""Training on frozen features."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.bench.suite import Case, OpSetup, Ratio, benchmark, close

ALPHAS = (0.9, 0.1)  # of the two models of a round
OURS, OPS, EAGER = "sal_fast", "ops", "eager"
Step = Callable[..., tuple[Tensor, Tensor]]  # gradients of weight and bias on some rows


def fused(
    features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, maps: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients by `head_step`."""
    step = ops.head_step(features, weight, bias, labels, maps, rows=rows, alpha=ALPHAS)
    return step.grad_weight, step.grad_bias


def by_autograd(
    loss: Callable[..., Tensor],
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    maps: Tensor,
    rows: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of a loss of one head, called for each head with its alpha."""
    batch, labels, maps = features[rows].permute(0, 3, 1, 2), labels[rows], maps[rows]
    heads = [x.detach().requires_grad_() for x in (weight, bias)]
    losses = [loss(batch, w, b, labels, maps, alpha) for w, b, alpha in zip(*heads, ALPHAS, strict=True)]
    grads = torch.autograd.grad(torch.stack(losses).sum(), heads)
    return grads[0], grads[1]


def by_ops(
    features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, maps: Tensor, alpha: float
) -> Tensor:
    """Return Eq. 1 of a head by `cam_head` and `cyborg_loss`."""
    head = ops.cam_head(features, weight, bias, labels)
    return ops.cyborg_loss(head.logits, head.cam, labels, maps, alpha=alpha)


def epoch(step: Step, batch: int, features: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor) -> None:
    """Train copies of the heads on all rows, in the order that is given last."""
    *stored, order = rest
    heads = [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
    optimizer = torch.optim.AdamW(heads, lr=1e-3, fused=True)
    for rows in order.split(batch):
        with torch.no_grad():
            plain = [x.detach() for x in heads]
        heads[0].grad, heads[1].grad = step(features, *plain, *stored, rows)
        optimizer.step()


def verify(batch: int, features: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor) -> None:
    """Compare the gradients of the first batch with those of the op in float64."""
    labels, maps, order = rest
    rows = order[:batch]
    exact = features[rows].double(), weight.double(), bias.double(), labels[rows], maps[rows]
    every = torch.arange(len(rows), device=features.device)
    results = fused(features, weight, bias, labels, maps, rows), fused(*exact, every)
    for got, expected in zip(*results, strict=True):
        close(got, expected, 1e-4, 1e-5)


@benchmark(rounds=5, unit="images")
def head_step(
    setup: OpSetup,
    images: int = 10_000,
    batch: int = 256,
    side: int = 7,
    channels: int = 384,
    classes: int = 10,
) -> Iterator[Case]:
    """An epoch of training two linear heads on frozen features, of alpha 0.9 and 0.1, with AdamW.

    The variant `ops` copies each batch and calls `cam_head`, `cyborg_loss` and autograd for each head.
    `eager` does the same with a mean, a linear layer, an einsum and five convolutions. On a CPU it should
    take at least 12 times our time, and we at most 4 times that of reading the features (a share of 25 %).

    Args:
        images: images whose features are stored.
        batch: images a step.
        side: rows and columns of the features.
        channels: channels of the features.
        classes: outputs of a head.
    """

    def inputs(seed: int) -> tuple[Tensor, ...]:
        normal, uniform, below = setup.draws(seed)
        features = uniform(images, side, side, channels).to(setup.kind)
        weight = channels**-0.5 * normal(2, classes, channels)
        bias = torch.zeros(2, classes, device=setup.place)
        labels, maps = below(classes, (images,)), uniform(images, side, side)
        return features, weight, bias, labels, maps, torch.randperm(images).to(setup.place)

    steps: dict[str, Step] = {
        OURS: fused,
        OPS: partial(by_autograd, by_ops),
        EAGER: partial(by_autograd, usual.cyborg_loss),
    }
    agreed_on = setup.place.type == "cpu" and images * batch * side * channels == 10_000 * 256 * 7 * 384
    limits = {OPS: None, EAGER: 12.0 if agreed_on else None}
    yield Case(
        variants={name: partial(epoch, step, batch) for name, step in steps.items()},
        inputs=inputs,
        verify=partial(verify, batch),
        ratios=[Ratio(name, OURS, at_least=limit) for name, limit in limits.items()],
        items=images,
        floor=images * side**2 * channels * setup.kind.itemsize,
    )
