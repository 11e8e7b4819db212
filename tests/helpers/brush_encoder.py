"""The brush's run-length code written, for the tests: the package itself only reads it."""

from __future__ import annotations

import numpy as np

SIZES = (3, 4, 8, 16)  # bits that a length may have


def encode(mask: np.ndarray) -> list[int]:
    """The code of a picture with the mask, uint8 [H, W], in all four channels."""
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] ^ 1))
    lengths = np.diff(starts, append=flat.size) * 4
    most = 1 << SIZES[-1]
    pieces = -(-lengths // most)
    which = np.repeat(np.searchsorted([1 << size for size in SIZES[:-1]], lengths), pieces)
    size = np.array(SIZES)[which]
    values = np.repeat(flat[starts], pieces).astype(np.int64)
    last = np.cumsum(pieces) - 1
    cut = np.full(len(values), most)
    cut[last] = lengths - (pieces - 1) * most
    words = (((4 | which) << size | cut - 1) << 8) | values
    width = 3 + size + 8
    bits = np.unpackbits((words << (32 - width)).astype(">u4").view(np.uint8)).reshape(-1, 32)
    header = (mask.size * 4) << 21 | 7 << 16
    for place, size_bits in enumerate(SIZES):
        header |= (size_bits - 1) << (12 - 4 * place)
    head = np.unpackbits(np.frombuffer(header.to_bytes(7, "big"), dtype=np.uint8))[3:]
    out = np.packbits(np.concatenate([head, bits[np.arange(32) < width[:, None]]]))
    return [int(byte) for byte in out]
