"""The images of a store, as batches on the device: kept there, streamed from their files, or mapped.

All three hold the images of a table, uint8 [N, S, S, 3], by row. Their method `batches` yields two things for
each group of row numbers (int64): a tensor of images on the device, and where in it the group's images are.
None means that the tensor holds these images alone, in order.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from sal_fast.data import reading
from sal_fast.data.decode import Decoder
from sal_fast.data.files import Unreadable
from sal_fast.errors import InputError


class Resident:
    """Images that stay in the device's memory."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def batches(self, groups: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        for rows in groups:
            yield self.pixels, rows


class Streamed:
    """Images that are decoded from their files each time, while the batch before is used."""

    def __init__(
        self, paths: Sequence[Path], stored_size: int, decoder: Decoder, white: float | None = None
    ) -> None:
        self.paths, self.stored_size, self.decoder, self.white = paths, stored_size, decoder, white

    def batches(self, groups: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        asked = [rows.tolist() for rows in groups]  # all at once, as a copy from a GPU waits for its work
        if self.decoder.device.type == "cpu":
            yield from reading.ahead((self._decode(rows), None) for rows in asked)
            return
        for pixels, ready in reading.ahead(map(self._decode_beside, asked)):
            using = torch.cuda.current_stream(pixels.device)
            using.wait_event(ready)
            pixels.record_stream(using)  # so that its memory is not given away before it is used
            yield pixels, None

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        """A stream for decoding: on the current one, work would wait for the training step before it."""
        return torch.cuda.Stream(self.decoder.device)

    def _decode_beside(self, rows: Sequence[int]) -> tuple[Tensor, torch.cuda.Event]:
        """Decode on the stream for that, and tell when the images are there."""
        with torch.cuda.stream(self._stream):
            return self._decode(rows), self._stream.record_event()

    def _decode(self, rows: Sequence[int]) -> Tensor:
        try:
            paths = [self.paths[row] for row in rows]
            return reading.pictures(paths, self.stored_size, self.decoder, self.white)
        except Unreadable as error:
            raise InputError(
                f"{error} (it was readable before); restore it, then repeat the command"
            ) from None


class Mapped:
    """Images that were decoded before, in a file. The system reads it when needed and caches what it can."""

    def __init__(self, pixels: Tensor, at: Tensor, device: torch.device) -> None:
        self.pixels, self.at, self.device = pixels, at, device

    def batches(self, groups: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        if self.device.type == "cpu":
            for rows in groups:
                yield self.pixels, self.at[rows]
            return
        asked = [self.at[rows.cpu()] for rows in groups]
        for pixels in reading.ahead(self.pixels[at].pin_memory() for at in asked):
            yield pixels.to(self.device, non_blocking=True), None


Images = Resident | Streamed | Mapped
