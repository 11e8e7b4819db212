"""NVIDIA DALI: on a GPU it decodes (`mixed`) and resizes, on a CPU it only decodes.

On a CPU `resize` resizes, so that pixels do not depend on the decoder; DALI's own resize takes nine
times as long there. Masks that are 8-bit grey PNGs are decoded here too, always on the CPU, because DALI
cannot decode them on a GPU.

We feed a pipeline one batch at a time and let it prefetch nothing: the subset that it would prefetch from may
have changed by then (`reading.ahead` reads ahead instead, within an epoch). A number goes through the
pipeline with each batch, and is checked when it comes out.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.pytorch import feed_ndarray
from torch import Tensor

from sal_fast.data.decode.base import Decoder
from sal_fast.data.files import Encoded, Unreadable
from sal_fast.data.resize import resize

BATCH = 256
HARDWARE_LOAD = 0.65  # the share of a batch for the GPU's JPEG engine, if it has one (DALI's default)


class DaliDecoder(Decoder):
    """Decodes plain JPEGs and grey PNG masks by DALI."""

    takes_masks = True

    def __init__(self, device: torch.device, hardware_load: float = HARDWARE_LOAD) -> None:
        super().__init__(device)
        on_gpu = device.type == "cuda"
        self.name = "DALI (mixed: on the GPU)" if on_gpu else "DALI (CPU)"
        self._grey = Pipeline(self.threads, types.GRAY)
        self._rgb = Pipeline(self.threads, types.RGB, device if on_gpu else None, hardware_load)
        if on_gpu:
            self._rgb.build(1)  # raises RuntimeError if DALI is made for a CUDA that the driver does not know

    def takes(self, file: Encoded) -> bool:
        return file.plain

    def _decode(self, batch: list[Encoded], out: Tensor, places: list[int]) -> None:
        def one(place: int, image: np.ndarray) -> None:
            out[place] = resize(torch.from_numpy(image), out.shape[1])

        for start in range(0, len(batch), BATCH):
            part = slice(start, start + BATCH)
            with self._rgb.lock:
                if self.device.type == "cuda":
                    out[places[part]] = self._rgb.resized(batch[part], out.shape[1])
                else:
                    self.map(one, places[part], self._rgb.decoded(batch[part]))

    def grades(self, batch: Sequence[Encoded]) -> list[np.ndarray | Unreadable]:
        grey = [i for i, file in enumerate(batch) if file.grey]
        out: dict[int, np.ndarray | Unreadable] = {}
        try:
            for start in range(0, len(grey), BATCH):
                part = grey[start : start + BATCH]
                with self._grey.lock:
                    pixels = self._grey.decoded([batch[i] for i in part])
                    out |= {i: image[..., 0].copy() for i, image in zip(part, pixels, strict=True)}
        except RuntimeError:  # one of them is damaged: Pillow says which
            pass
        left = [i for i in range(len(batch)) if i not in out]
        out |= dict(zip(left, super().grades([batch[i] for i in left]), strict=True))
        return [out[i] for i in range(len(batch))]


def _number(device: torch.device) -> int:
    """The number of a GPU. `cuda` without one is the current GPU, as everywhere in torch."""
    return torch.cuda.current_device() if device.index is None else device.index


class Pipeline:
    """A DALI pipeline. It is made when it is first used, and again after a damaged file has ended it (15 ms).

    Its results lie in its own memory until the next call, so callers hold `lock` until they have used them.
    """

    def __init__(
        self, threads: int, kind: types.DALIImageType, device: torch.device | None = None, load: float = 0.0
    ) -> None:
        self._threads, self._kind, self._device, self._load = threads, kind, device, load
        self._pipes: dict[int, Any] = {}
        self._number = 0
        self.lock = threading.Lock()

    def decoded(self, batch: list[Encoded]) -> list[np.ndarray]:
        """Decode to uint8 [H, W, C] each, on the host. Raises RuntimeError if a file is damaged."""
        images = self._run([file.data for file in batch], 0)
        out = [np.asarray(images.at(i)) for i in range(len(batch))]
        if any(image.shape[1::-1] != file.size for image, file in zip(out, batch, strict=True)):
            raise RuntimeError("DALI and Pillow read a header differently")
        return out

    def resized(self, batch: list[Encoded], size: int) -> Tensor:
        """`decoded`, then resized: uint8 [B, size, size, 3] on the device."""
        images = self._run([file.data for file in batch], size).as_tensor()
        out = torch.empty(len(batch), size, size, 3, dtype=torch.uint8, device=self._device)
        feed_ndarray(images, out, cuda_stream=torch.cuda.current_stream(self._device))
        return out

    def _run(self, data: list[bytes], size: int) -> Any:
        pipe = self._pipes.get(size)
        if pipe is None:
            pipe = self._pipes[size] = self.build(size)
        self._number += 1
        try:
            pipe.feed_input("data", [np.frombuffer(one, dtype=np.uint8) for one in data])
            pipe.feed_input("number", [np.array([self._number]) for _ in data])
            images, numbers = pipe.run()
        except RuntimeError:
            del self._pipes[size]  # it is no longer valid
            raise
        if {int(np.asarray(numbers.at(i))[0]) for i in range(len(numbers))} != {self._number}:
            raise AssertionError(f"batch {self._number} was asked of DALI, another came")
        return images

    def build(self, size: int) -> Any:
        """Make the pipeline that resizes to `size` pixels a side; 0: that does not resize."""
        options: dict[str, Any] = {}
        if self._device:  # fancy upsampling, because pixels differ from the CPU's without it
            options = {"hw_decoder_load": self._load, "jpeg_fancy_upsampling": True}

        @pipeline_def(
            batch_size=BATCH,
            num_threads=self._threads,
            device_id=None if self._device is None else _number(self._device),
            prefetch_queue_depth=1,
            exec_async=False,
            exec_pipelined=False,
        )
        def decode() -> tuple[Any, Any]:
            images = fn.decoders.image(
                fn.external_source(name="data", no_copy=True),
                device="mixed" if self._device else "cpu",
                output_type=self._kind,
                adjust_orientation=False,  # Pillow gets files that must be turned, as it reads more of EXIF
                **options,
            )
            if size:
                images = fn.resize(images, size=(size, size), interp_type=types.INTERP_LINEAR, antialias=True)
            return images, fn.external_source(name="number")

        pipe = decode()
        pipe.build()
        return pipe
