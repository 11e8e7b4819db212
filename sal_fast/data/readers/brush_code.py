"""The run-length code in which Label Studio keeps what its brush drew (the code of @thi.ng/rle-pack).

A code begins with 32 bits for the number of values, 5 bits for the bits of a value less 1, and four times 4
bits for the sizes in bits, less 1, that a length may have. Pieces follow. A piece has 1 bit that tells
whether it is a run, 2 bits that choose the size of its length, the length less 1, and then either the one
value of a run or all values. The values of a picture are its RGBA bytes, row by row.
"""

import numpy as np

SIZES = (3, 4, 8, 16)  # bits of a length in what we write
DAMAGED = "the brush's code ends too early; export again, or draw the map again"


def decode(code: object, size: tuple[int, int]) -> np.ndarray:
    """The alpha channel of a coded picture of `size` (width, height), as uint8 [H, W].

    Raises ValueError for a damaged code, before anything larger than the picture is made.
    """
    if not isinstance(code, list) or not all(type(byte) is int and 0 <= byte <= 255 for byte in code):
        raise ValueError("the brush's code is damaged (expected a list of bytes); draw the map again")
    bits = _Bits(bytes(code))
    count, width = bits.take(32), bits.take(5) + 1
    sizes = [bits.take(4) + 1 for _ in range(4)]
    if count != size[0] * size[1] * 4:
        raise ValueError(
            f"the brush's code holds {count:,} values, expected {size[0]}x{size[1]} pixels of four; "
            f"label the pictures as they were exported"
        )
    if width != 8:
        raise ValueError(f"the brush's code has values of {width} bits, expected 8; draw the map again")
    values = np.empty(count, dtype=np.uint8)
    done = 0
    while done < count:
        run, length = bits.take(1), bits.take(sizes[bits.take(2)]) + 1
        if done + length > count:
            raise ValueError("the brush's code runs beyond the picture; export again, or draw the map again")
        values[done : done + length] = bits.take(8) if run else bits.take_bytes(length)
        done += length
    return values.reshape(size[1], size[0], 4)[..., 3]


def encode(mask: np.ndarray) -> list[int]:
    """The code of a picture that has `mask`, uint8 [H, W], in all four channels. It has runs only."""
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] ^ 1))
    lengths = np.diff(starts, append=flat.size) * 4
    most = 1 << SIZES[-1]
    pieces = -(-lengths // most)  # of each run, all but the last as long as can be
    which = np.repeat(np.searchsorted([1 << size for size in SIZES[:-1]], lengths), pieces)
    cut = np.full(len(which), most)
    cut[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * most
    values = np.repeat(flat[starts], pieces).astype(np.int64)
    size = np.array(SIZES)[which]
    words = (((4 | which) << size | cut - 1) << 8) | values
    width = 3 + size + 8
    bits = np.unpackbits((words << (32 - width)).astype(">u4").view(np.uint8)).reshape(-1, 32)
    header = (mask.size * 4) << 21 | 7 << 16
    for place, size_bits in enumerate(SIZES):
        header |= (size_bits - 1) << (12 - 4 * place)
    head = np.unpackbits(np.frombuffer(header.to_bytes(7, "big"), dtype=np.uint8))[3:]
    return np.packbits(np.concatenate([head, bits[np.arange(32) < width[:, None]]])).tolist()


class _Bits:
    """Reads numbers of any width from bytes, the highest bit first. Raises ValueError at their end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
        self.position = 0

    def take(self, count: int) -> int:
        """The next `count` bits as a number."""
        first = self._advance(count)
        whole = int.from_bytes(self.data[first >> 3 : (self.position + 7) >> 3], "big")
        return whole >> (-self.position & 7) & ((1 << count) - 1)

    def take_bytes(self, count: int) -> np.ndarray:
        """The next `count` bytes, uint8 [count]."""
        first = self._advance(8 * count)
        return np.packbits(self.bits[first : self.position])

    def _advance(self, count: int) -> int:
        first, self.position = self.position, self.position + count
        if self.position > len(self.bits):
            raise ValueError(DAMAGED)
        return first
