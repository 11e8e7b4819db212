"""torchvision for plain JPEGs, on a GPU by nvJPEG; Pillow decodes all other files.

Other Python threads run while it decodes. Its PNG decoder is not used: a damaged file ends the process.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import io

from sal_fast.data import files
from sal_fast.data.decode.base import Decoder
from sal_fast.data.resize import resize

# torchvision warns that its decoders will move to torchcodec, which does not exist everywhere yet
warnings.filterwarnings("ignore", message="The image decoding and encoding", category=DeprecationWarning)
HAS_DECODER = hasattr(io, "decode_jpeg")


class TorchDecoder(Decoder):
    """Decodes plain JPEGs by torchvision."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        where = ", plain JPEGs on the GPU" if device.type == "cuda" else ""
        if HAS_DECODER:
            self.name = f"torchvision{where}"

    def takes(self, file: files.Encoded) -> bool:
        return file.plain and HAS_DECODER

    def _decode(self, batch: list[files.Encoded], out: Tensor, places: list[int]) -> None:
        encoded = [torch.frombuffer(bytearray(file.data), dtype=torch.uint8) for file in batch]
        if self.device.type == "cuda":
            images = io.decode_jpeg(encoded, io.ImageReadMode.RGB, device=self.device)
            for place, image in zip(places, images, strict=True):
                small = F.interpolate(image[None].float(), out.shape[1:3], mode="bilinear", antialias=True)
                out[place] = small[0].round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0)
            return

        def one(place: int, data: Tensor) -> None:
            image = io.decode_jpeg(data, io.ImageReadMode.RGB)
            out[place] = resize(image.permute(1, 2, 0), out.shape[1])

        self.map(one, places, encoded)
