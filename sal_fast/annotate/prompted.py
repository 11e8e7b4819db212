"""Segment Anything as a process that answers boxes and points.

`python -m sal_fast.annotate.prompted CHECKPOINT` reads requests from its standard input, and writes answers
to its standard output, until the input ends. Each message is a line of JSON, which may be followed by raw
bytes. `sal_fast.people.segmenter` starts it, so that a server without torch can have its masks.

    request   {"picture": NAME, "height": H, "width": W, "bytes": H * W * 3 or 0,
               "box": [x0, y0, x1, y1] or null, "points": [[x, y, 1 or 0], ...]}, and the picture, RGB by row
    answer    {"bytes": n}, and the mask, a bit for each pixel by row, the highest bit first
              {"unknown": true}: the process does not know the picture (any more), so send it
              {"error": "a sentence"}

The first message is {"ready": true} or an error.
"""

import json
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import torch

from sal_fast._util.devices import torch_device
from sal_fast.annotate import sam
from sal_fast.errors import InputError

PICTURES = 4  # whose embeddings are kept


class Prompted:
    """Segment Anything for several prompts on few pictures: the embeddings of the last ones are kept."""

    def __init__(self, checkpoint: str, device: torch.device) -> None:
        library, model = sam.load(checkpoint, device)
        self._predictor = library.SamPredictor(model)
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def knows(self, name: str) -> bool:
        """True if the embedding of a picture is kept."""
        return name in self._kept

    def see(self, name: str, picture: np.ndarray) -> None:
        """Compute the embedding of a picture, uint8 [H, W, 3], which may take seconds."""
        self._predictor.set_image(picture)
        self._kept[name] = {key: getattr(self._predictor, key) for key in self._state()}
        while len(self._kept) > PICTURES:
            self._kept.popitem(last=False)

    def mask(
        self, name: str, box: Sequence[float] | None, points: Sequence[tuple[float, float, bool]]
    ) -> np.ndarray:
        """The mask of a known picture for a box or points, bool [H, W].

        A single point can mean a thing or a part of it. The model then gives three masks, and we take the one
        of the highest predicted IoU. For a box and for several points it gives one.
        """
        self._kept.move_to_end(name)
        for key, value in self._kept[name].items():
            setattr(self._predictor, key, value)
        given: dict[str, Any] = {"box": None if box is None else np.array(box, dtype=np.float64)}
        if points:
            given["point_coords"] = np.array([point[:2] for point in points], dtype=np.float64)
            given["point_labels"] = np.array([int(point[2]) for point in points])
        masks, quality, _ = self._predictor.predict(
            **given, multimask_output=box is None and len(points) == 1
        )
        return np.asarray(masks[int(quality.argmax())], dtype=bool)

    def _state(self) -> tuple[str, ...]:
        return ("is_image_set", "features", "original_size", "input_size")


def serve(checkpoint: str, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""

    def tell(message: dict[str, Any], data: bytes = b"") -> None:
        answers.write(json.dumps(message).encode() + b"\n" + data)
        answers.flush()

    try:
        prompted = Prompted(checkpoint, torch_device("auto"))
    except InputError as error:
        tell({"error": str(error)})
        return
    tell({"ready": True})
    for line in requests:
        request = json.loads(line)
        name, data = request["picture"], requests.read(request["bytes"])
        try:
            if data:
                shape = request["height"], request["width"], 3
                prompted.see(name, np.frombuffer(data, dtype=np.uint8).reshape(shape))
            if not prompted.knows(name):
                tell({"unknown": True})
                continue
            bits = np.packbits(prompted.mask(name, request["box"], request["points"])).tobytes()
        except torch.OutOfMemoryError:
            tell({"error": "there is not enough memory for Segment Anything; close other programs"})
        except RuntimeError as error:
            first = str(error).strip().partition("\n")[0]
            tell({"error": f"Segment Anything could not answer: {first}"})
        else:
            tell({"bytes": len(bits)}, bits)


def main() -> None:
    """Serve on the standard input and output. What a library prints goes to the standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.argv[1], sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
