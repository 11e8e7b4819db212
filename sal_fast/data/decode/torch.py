"""Pillow, and torchvision for plain JPEGs: on the CPU by libjpeg-turbo in threads, on a GPU by nvJPEG."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from sal_fast.data import files
from sal_fast.data.decode.base import Decoder
from sal_fast.data.files import Encoded


class TorchDecoder(Decoder):
    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.name = f"torch (torchvision on the {'GPU' if device.type == 'cuda' else 'CPU'}, Pillow)"

    def _decode(self, batch: list[Encoded], out: Tensor, places: list[int]) -> None:
        if self.device.type == "cuda":
            self._on_gpu(batch, out, places)
            return

        def one(file: Encoded, place: int) -> None:
            out[place] = files.resize(
                decode_jpeg(_bytes(file), ImageReadMode.RGB).permute(1, 2, 0), out.shape[1]
            )

        for _ in self.pool.map(one, batch, places):
            pass

    def _on_gpu(self, batch: list[Encoded], out: Tensor, places: list[int]) -> None:
        size = out.shape[1:3]
        decoded = decode_jpeg([_bytes(file) for file in batch], ImageReadMode.RGB, device=self.device)
        for place, image in zip(places, decoded, strict=True):
            small = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)
            out[place] = small[0].round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0)


def _bytes(file: Encoded) -> Tensor:
    return torch.frombuffer(bytearray(file.data), dtype=torch.uint8)
