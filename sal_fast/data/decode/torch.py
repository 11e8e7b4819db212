"""Pillow in threads; on a GPU nvJPEG through torchvision for plain JPEGs."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import io

from sal_fast.data.decode.base import Decoder
from sal_fast.data.files import Encoded

# torchvision gives its decoders up to torchcodec, which is not everywhere yet
warnings.filterwarnings("ignore", message="The image decoding and encoding", category=DeprecationWarning)


class TorchDecoder(Decoder):
    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._on_gpu = device.type == "cuda" and hasattr(io, "decode_jpeg")
        self.name = "torchvision (on the GPU) and Pillow" if self._on_gpu else "Pillow"

    def takes(self, file: Encoded) -> bool:
        return file.plain and self._on_gpu

    def _decode(self, batch: list[Encoded], out: Tensor, places: list[int]) -> None:
        encoded = [torch.frombuffer(bytearray(file.data), dtype=torch.uint8) for file in batch]
        images = io.decode_jpeg(encoded, io.ImageReadMode.RGB, device=self.device)
        for place, image in zip(places, images, strict=True):
            small = F.interpolate(image[None].float(), out.shape[1:3], mode="bilinear", antialias=True)
            out[place] = small[0].round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0)
