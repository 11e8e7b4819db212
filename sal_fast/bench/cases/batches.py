"""The ops that make batches from stored images and masks."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.bench.suite import Case, OpSetup, Variant, against, benchmark, close

COVERED = 0.49  # of an image, by a box on average: 0.7 of each side


@benchmark(rounds=15)
def crop(
    setup: OpSetup, batch: int = 64, stored: int = 1000, side: int = 256, frame: int = 224
) -> Iterator[Case]:
    """Batches from stored images: whole images, boxes of larger ones, and boxes of masks of bits.

    The variant `sal_fast` writes to the memory of the batch before, as a training loop does, and `fresh` to
    new memory. `eager` indexes, converts, calls grid_sample and normalises.

    Args:
        batch: images of a batch.
        stored: images that are stored.
        side: pixels a side of the larger images.
        frame: pixels a side of the batch, of the smaller images and of the masks.
    """

    def inputs(seed: int, case: str) -> tuple[Tensor, ...]:
        _, uniform, below = setup.draws(seed)
        rows, corners = below(stored, (batch,)), 0.3 * uniform(batch, 4)
        box = torch.cat([corners[:, :2], 1 - corners[:, 2:]], 1)
        if case == "masks":
            return ops.BitMask.pack(uniform(stored, frame, frame) < 0.3).words, rows, box
        size = frame if case == "frame" else side
        images = below(256, (stored, size, size, 3), dtype=torch.uint8)
        return (images, rows) if case == "frame" else (images, rows, box)

    def fresh(images: Tensor, rows: Tensor, box: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        scale = torch.tensor([1 / (255 * std) for std in usual.STD]).diag()
        shift = torch.tensor([-mean / std for mean, std in zip(usual.MEAN, usual.STD, strict=True)])
        color = torch.cat([scale, shift[:, None]], 1).to(images.device)
        return ops.crop_images(images, rows, box, size=frame, color=color, dtype=setup.kind, out=out)

    def kept(images: Tensor, rows: Tensor, box: Tensor | None = None) -> Tensor:
        return fresh(images, rows, box, memory)

    def verify(images: Tensor, rows: Tensor, *box: Tensor) -> None:
        eps = torch.finfo(setup.kind).eps
        exact = usual.crop_images(images, rows, *box, frame=frame, dtype=torch.float64)
        close(fresh(images, rows, *box), exact, eps, 4 * eps)

    def masks(words: Tensor, rows: Tensor, box: Tensor) -> Tensor:
        return ops.crop_masks(ops.BitMask(words, frame), rows, box, size=frame)

    def verify_masks(words: Tensor, rows: Tensor, box: Tensor) -> None:
        assert torch.equal(masks(words, rows, box), usual.crop_masks(words, rows, box.double(), frame))

    memory = torch.empty(batch, 3, frame, frame, dtype=setup.kind, device=setup.place)
    eager = partial(usual.crop_images, frame=frame, dtype=setup.kind)
    variants = against(kept, eager, fresh=fresh)
    for case, read in (("frame", 3 * frame**2), ("crop", 3 * COVERED * side**2)):
        moved = round(batch * (read + 3 * setup.kind.itemsize * frame**2))
        yield Case(case, variants, partial(inputs, case=case), verify, floor=moved)
    of_masks: dict[str, Variant] = {"sal_fast": masks, "eager": partial(usual.crop_masks, frame=frame)}
    moved = round(batch * (COVERED * frame * 4 * -(-frame // 32) + frame**2))
    yield Case("masks", of_masks, partial(inputs, case="masks"), verify_masks, floor=moved)
