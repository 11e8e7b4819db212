"""A step of training, and the scoring of a pool."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from sal_fast import ops, train
from sal_fast.bench import usual
from sal_fast.bench.suite import Case, Ratio, Setup, Variant, benchmark
from sal_fast.data import Sample, Store, augment, make_table
from sal_fast.data.masks import Masks
from sal_fast.data.store import Resident, assembled
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.experiment.regimes import INTERPRETABILITY_ALPHA, REGIMES
from sal_fast.experiment.rounds import recipe
from sal_fast.models import Classifier, build, feature_size, network
from sal_fast.train.evaluate import BATCH
from sal_fast.train.recipe import MOMENTUM, WEIGHT_DECAY

ALPHA = REGIMES["sal"].alpha
BARE, CLASSIFY, SALIENCY = "bare forward and backward", "cross-entropy step", "saliency step"
FED, TWO, EAGER = "saliency step from the store", "two models from the store", "saliency step, eager torch"
SCORE, LOOP, LOADER = "score", "bare forward loop", "DataLoader, softmax, to the host"
Batch = tuple[Tensor, Tensor, Tensor | ops.BitMask, Tensor]  # images, labels, maps, which have a map


@dataclass(frozen=True)
class NetworkSetup(Setup):
    """The options of a benchmark with a network. Its weights and images are random: they cost the same."""

    arch: str = "resnet18"
    """The network."""
    image_size: int = 64
    """Pixels a side of its images."""
    output_stride: int | None = None
    """Pixels a feature (ResNets). None stands for 16 up to 96 pixels a side, and for 32 above."""
    classes: int = 200
    """Outputs of the network."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """The network's arithmetic: float32, or bfloat16 by autocast."""
    compile: bool = False
    """Run the network of every variant through torch.compile; on a GPU it becomes CUDA graphs."""

    def model(self) -> Classifier:
        """Return the network, the same each time; InputError if its feature maps are too small for a loss."""
        small = self.image_size <= 96 and bool(network(self.arch).strides)
        stride = self.output_stride or (16 if small else 32)
        made = build(
            self.arch, self.classes, output_stride=stride, precision=self.precision, compiled=self.compile
        )
        size = feature_size(made, self.image_size)
        if min(size) < 3:
            raise InputError(
                f"{self.arch} has {size[0]}x{size[1]} features at --image-size {self.image_size}: too few "
                f"to compare maps at (3x3 at least); lower --output-stride (it is {stride}) or raise "
                f"--image-size"
            )
        layout = torch.channels_last if self.place.type == "cuda" else torch.contiguous_format
        return made.to(self.place, memory_format=layout)  # type: ignore[call-overload]

    def store(self, images: int, stored_size: int) -> Store:
        """Return a store on the device in which every image has a label and a mask, a disc."""
        draws = torch.Generator().manual_seed(0)
        shape = (images, stored_size, stored_size, 3)
        pixels = torch.randint(256, shape, generator=draws, dtype=torch.uint8)
        labels = torch.randint(self.classes, (images,), generator=draws).tolist()
        rows = (Sample(f"{row:06d}", "", f"{label:04d}", "", "train") for row, label in enumerate(labels))
        table = make_table("noise", rows)
        discs = usual.distances(images, self.image_size, partial(torch.rand, generator=draws)) < 1
        masks = Masks.pack(discs.to(torch.uint8) * 255)
        return assembled(table, Resident(pixels.to(self.place)), masks.to(self.place), [])


@benchmark(unit="images")
def step(setup: NetworkSetup, batch_size: int = 16, images: int = 512) -> Iterator[Case]:
    """A step of training: with saliency and without, fed from the store, two models, in eager torch.

    A step with saliency should take at most 1.15 times as long as one without (ResNet-18, 64 px, CPU), and
    two models at most twice as long as one. On a GPU one model should reach 0.95 of the speed of a bare
    forward and backward on a fixed tensor, and two models 0.9.

    Args:
        batch_size: images a step.
        images: images in the store.
    """
    model = setup.model()  # raises InputError before anything costly is made
    by = recipe(Config.of({"batch_size": batch_size, "lr": 0.005, "augment": "standard"}))
    batch_size = min(batch_size, images)
    samples = setup.store(images, augment.stored_size("standard", setup.image_size))
    fixed = next(feed(samples, batch_size))
    fed, fed_two = feed(samples, batch_size), feed(samples, batch_size)

    def new(alpha: float) -> train.Step:
        return train.Step(setup.model(), alpha=alpha, recipe=by)

    one, two = new(ALPHA), [new(alpha) for alpha in (ALPHA, INTERPRETABILITY_ALPHA)]

    def both() -> None:
        batch = next(fed_two)
        for each in two:
            each(*batch)

    eager, gpu = setup.model(), setup.place.type == "cuda"
    optimizer = torch.optim.SGD(eager.parameters(), lr=0.005, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    small = not gpu and (setup.arch, setup.image_size) == ("resnet18", 64)
    variants: dict[str, Variant] = {
        BARE: partial(_bare, setup.model(), fixed),
        CLASSIFY: partial(new(1), *fixed),
        SALIENCY: partial(new(ALPHA), *fixed),
        FED: lambda: one(*next(fed)),
        TWO: both,
        EAGER: partial(_eager, eager, optimizer, fixed, setup.precision == "bfloat16"),
    }
    ratios = [
        Ratio(SALIENCY, CLASSIFY, at_most=1.15 if small else None),
        Ratio(TWO, FED, at_most=2),
        Ratio(BARE, FED, at_least=0.95 if gpu else None),
        Ratio(BARE, TWO, times=2, at_least=0.9 if gpu else None),
        Ratio(FED, SALIENCY),
        Ratio(EAGER, SALIENCY),
    ]
    yield Case(variants=variants, verify=partial(_verify, model, fixed), ratios=ratios, items=batch_size)


def feed(samples: Store, batch_size: int) -> Iterator[Batch]:
    """Yield batches without end as the training loop does: cropped, mirrored, normalised, the maps alike."""
    draws = torch.Generator().manual_seed(0)
    for epoch in count():
        order = torch.randperm(len(samples.table), generator=draws).to(samples.device)
        groups = [rows for rows in order.split(batch_size) if len(rows) == batch_size]
        drawn = samples.draws(groups, augment.Augmentation("standard", 0, 0, epoch))
        for rows, draw, images in zip(groups, drawn, samples.views(groups, drawn), strict=True):
            yield images, samples.labels[rows], samples.masks.batch(rows, draw.box), samples.has_mask[rows]


def _bare(model: Classifier, batch: Batch) -> None:
    images = batch[0]
    if images.device.type == "cuda":
        images = images.contiguous(memory_format=torch.channels_last)
    model.zero_grad()
    cross_entropy(model(images)[0], batch[1]).backward()


def _usual_loss(model: Classifier, batch: Batch) -> Tensor:
    images, labels, targets, _ = batch
    masks = targets.unpack() if isinstance(targets, ops.BitMask) else targets
    head = model.head
    return usual.cyborg_loss(model.features(images), head.weight, head.bias, labels, masks, ALPHA)


def _eager(model: Classifier, optimizer: torch.optim.Optimizer, batch: Batch, bfloat16: bool) -> None:
    optimizer.zero_grad()
    with torch.autocast(batch[0].device.type, torch.bfloat16, enabled=bfloat16):
        loss = _usual_loss(model, batch)
    loss.backward()
    optimizer.step()


@torch.no_grad()
def _verify(model: Classifier, batch: Batch) -> None:
    """Compare our loss with the usual one."""
    images, labels, targets, _ = batch
    head = ops.cam_head(model.features(images), model.head.weight, model.head.bias, labels)
    got = ops.cyborg_loss(head.logits, head.cam, labels, targets, alpha=ALPHA)
    torch.testing.assert_close(got, _usual_loss(model, batch), rtol=1e-3, atol=1e-3)


@benchmark(unit="images")
def score(setup: NetworkSetup, images: int = 1024) -> Iterator[Case]:
    """Logits and penultimate features of a pool from the store, against a bare forward loop.

    The bare loop takes a fixed batch of the same size; its time over ours should be at least 0.95. The usual
    loop has a DataLoader, softmax, and each batch copied to the host.

    Args:
        images: images in the pool.
    """
    model = setup.model().eval()
    samples = setup.store(images, setup.image_size)
    rows = torch.arange(images, device=setup.place)
    parts = rows.split(BATCH)
    views = torch.cat([part.cpu() for part in samples.views(parts)])
    fixed = next(samples.views(parts[:1]))
    loader = DataLoader(TensorDataset(views), batch_size=BATCH)
    ours = partial(train.score, model, samples, rows)

    @torch.no_grad()
    def loop() -> None:
        for part in parts:
            model(fixed[: len(part)])

    @torch.no_grad()
    def loaded() -> Tensor:
        return torch.cat([model(part.to(setup.place))[0].softmax(1).cpu() for (part,) in loader])

    def verify() -> None:
        tolerance = 1e-3 if setup.precision == "float32" else 5e-2
        torch.testing.assert_close(ours()[0].softmax(1).cpu(), loaded(), rtol=tolerance, atol=tolerance)

    ratios = [Ratio(LOOP, SCORE, at_least=0.95), Ratio(LOADER, SCORE)]
    yield Case("", {SCORE: ours, LOOP: loop, LOADER: loaded}, verify=verify, ratios=ratios, items=images)
