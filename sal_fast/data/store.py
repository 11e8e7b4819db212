"""Every sample of a table, as batches on the device.

An image is brought to the stored size first and cropped afterwards, wherever it is kept, so batches do not
depend on that. Maps always stay on the device, with one bit per pixel where they are binary.
"""

import hashlib
import logging
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sal_fast import ops
from sal_fast._util import progress
from sal_fast.data import augment, meaning, reading
from sal_fast.data.augment import Augmentation, Draws
from sal_fast.data.decode import Decoder
from sal_fast.data.duplicates import Traits
from sal_fast.data.files import DIGEST, Unreadable
from sal_fast.data.images import Images, Resident, Streamed
from sal_fast.data.masks import Masks
from sal_fast.data.meaning import Seen, Verdict
from sal_fast.data.reading import StoreOptions
from sal_fast.data.table import Table
from sal_fast.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """All samples of a table; row i here is row i of the table.

    masks: the maps of all rows in the frame of F = image_size pixels a side; a row without a map has an
        empty one.
    has_mask: bool [N]. labels: int64 [N].
    keys: uint64 [N] on the host; the draws of an image follow from its key (`augment.keys`).
    fingerprint: SHA-256 over ids, labels, splits and the bytes of all files, in hexadecimal.
    traits: what tells whether two pictures are one; None if the images came from no files.
    digests: of the files of each row, which the fingerprint is made of.
    """

    table: Table
    images: Images
    masks: Masks
    has_mask: Tensor
    labels: Tensor
    keys: np.ndarray
    fingerprint: str
    traits: Traits | None = None
    digests: Sequence[bytes] = ()

    @property
    def device(self) -> torch.device:
        """The device of batches, labels and maps."""
        return self.labels.device

    @property
    def image_size(self) -> int:
        """The frame: pixels a side of what a network sees."""
        return self.masks.size

    def rows(self, split: str) -> Tensor:
        """The row numbers of one split, int64 on the device."""
        return torch.tensor(self.table.rows(split), dtype=torch.int64, device=self.device)

    def draws(self, groups: Sequence[Tensor], augmentation: Augmentation) -> list[Draws]:
        """Draw how an epoch crops, colours and rotates the images of each group of rows."""
        at = torch.cat(tuple(groups)).cpu().numpy()
        return augmentation.draw(self.keys[at]).to(self.device).split([len(group) for group in groups])

    def views(self, groups: Sequence[Tensor], draws: Sequence[Draws] | None = None) -> Iterator[Tensor]:
        """Yield what a network sees of each group of rows: float32 [B, 3, F, F], cropped, coloured,
        normalised and rotated.

        Without `draws` the whole image is shown.
        """
        plain = augment.plain().to(self.device)
        for index, (pixels, rows) in enumerate(self.images.batches(groups)):
            drawn = plain if draws is None else draws[index]
            view = ops.crop_images(pixels, rows, drawn.box, size=self.image_size, color=drawn.color)
            yield view if drawn.angle is None else augment.rotated(view, drawn.angle, "bilinear")

    def pictures(self, rows: Tensor) -> Tensor:
        """Images for people to look at: uint8 [B, F, F, 3]."""
        exact = torch.eye(3, 4, device=self.device)
        out = []
        for pixels, at in self.images.batches(rows.split(reading.BATCH)):
            view = ops.crop_images(pixels, at, size=self.image_size, color=exact)
            out.append(view.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1))
        return torch.cat(out)


def build(table: Table, options: StoreOptions) -> Store:
    """Decode every file once; keep the maps, and the images unless they are to be streamed.

    Raises InputError that names the files that cannot be used.
    """
    images, masks, digests, looks = decoded(table, options)
    return assembled(table, images, masks, digests, traits_of(digests, looks))


def decoded(table: Table, options: StoreOptions) -> tuple[Images, Masks, list[bytes], Tensor | None]:
    """Decode every file once, with a progress bar; return the images, the maps, each row's digest, and the
    looks (`reading.Part`).

    Images that are to be streamed are not kept. Raises InputError at the end that names the first file that
    cannot be used and counts the others.
    """
    size, decoder = options.stored_size, options.decoder
    kept = None
    if options.keep != "stream":
        kept = torch.empty(len(table), size, size, 3, dtype=torch.uint8, device=decoder.device)
    masks, digests = [Masks.empty(0, options.image_size, decoder.device)], []
    looks: list[Tensor] = []
    broken: list[Unreadable] = []
    seen: list[tuple[str, Seen]] = []
    deep: list[int] = []
    with progress.bar(f"decoding {table.name}", len(table), log=len(table) > 2000) as advance:
        parts = reading.parts(table, range(len(table)), options, out=kept)
        for part in reading.ahead(parts, depth=1):
            broken += part.broken.values()
            digests += part.digests
            looks += [] if part.looks is None else [part.looks]
            deep += part.deep.values()
            seen += [
                (table.ids[row], one)
                for row, several in zip(part.rows, part.seen, strict=True)
                for one in several
            ]
            masks.append(packed(part.masks, options.image_size).to(decoder.device))
            advance(len(part.rows))
    if broken:
        more = f" (and {len(broken) - 1} more; `sal-fast data check` lists them)" if len(broken) > 1 else ""
        raise InputError(f"{broken[0]}{more}")
    accept(meaning.judge(seen, table.rule), deep, table)
    white = table.rule.white
    images = Streamed(table.images, size, decoder, white) if kept is None else Resident(kept)
    return images, Masks.cat(masks), digests, torch.cat(looks) if looks else None


def accept(verdict: Verdict, deep: Sequence[int], table: Table) -> None:
    """Log the notes of a verdict, and of deep images (`Part.deep`). InputError if masks are refused."""
    if verdict.problems:
        raise InputError(f"{table.name}: {verdict.problems[0]}")
    for note in (*verdict.notes, *meaning.of_deep_images(deep, table.rule)):
        log.info("%s: %s", table.name, note)


def traits_of(digests: Sequence[bytes], looks: Tensor | None) -> Traits:
    """What tells whether two pictures are one: of each row's digest the part that is the image's own."""
    return Traits([digest[:DIGEST] for digest in digests], looks)


def assembled(
    table: Table, images: Images, masks: Masks, digests: Sequence[bytes], traits: Traits | None = None
) -> Store:
    """The store of these images and masks, which have a row for each row of the table."""
    device = masks.place.device
    return Store(
        table=table,
        images=images,
        masks=masks,
        has_mask=torch.tensor([mask is not None for mask in table.masks], device=device),
        labels=torch.tensor(table.labels, dtype=torch.int64, device=device),
        keys=augment.keys(table.ids),
        fingerprint=fingerprint(table, digests),
        traits=traits,
        digests=digests,
    )


def packed(masks: Sequence[np.ndarray | None], size: int) -> Masks:
    """The masks of some rows, uint8 [size, size] each; an empty map where there is none."""
    maps = np.zeros((len(masks), size, size), dtype=np.uint8)
    for row, mask in enumerate(masks):
        if mask is not None:
            maps[row] = mask
    return Masks.pack(torch.from_numpy(maps))


def fingerprint(table: Table, digests: Sequence[bytes], without: Container[str] = ()) -> str:
    """SHA-256 of ids, labels, splits and the digests of each row's files, in hexadecimal.

    `without` has ids that are left out, as if these images were not there.
    """
    whole = hashlib.sha256()
    for row, digest in enumerate(digests):
        if table.ids[row] not in without:
            line = f"{table.ids[row]}\t{table.class_name(row)}\t{table.split[row]}\t"
            whole.update(line.encode() + digest)
    return whole.hexdigest()


def read_masks(masks: Sequence[Path], images: Sequence[Path], size: int, decoder: Decoder) -> Masks:
    """Read a mask file for each of these images, in the frame of `size` pixels a side.

    Raises InputError that names those that cannot be used.
    """
    table = Table("masks", [], [str(path) for path in masks], list(images), [], list(masks))
    return decoded(table, StoreOptions(size, 0, decoder))[1]
