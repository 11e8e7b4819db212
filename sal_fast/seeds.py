"""One seed tree: every random draw comes from a stream named by (seed, purpose, round).

A stream depends on nothing else: not on the regime, on what was drawn before, on the number of devices, or
on whether the run was killed in between. So a rerun repeats itself and regimes with one seed are paired.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch


def sequence(seed: int, purpose: str, *path: int) -> np.random.SeedSequence:
    """The node (seed, purpose, path...) of the seed tree."""
    return np.random.SeedSequence(entropy=seed, spawn_key=(zlib.crc32(purpose.encode()), *path))


def stream(seed: int, purpose: str, *path: int) -> np.random.Generator:
    """A numpy generator for one purpose (and, for instance, one round)."""
    return np.random.Generator(np.random.Philox(sequence(seed, purpose, *path)))


def integer(seed: int, purpose: str, *path: int) -> int:
    """A 63-bit integer from the tree, for libraries that take a seed of their own."""
    return int(sequence(seed, purpose, *path).generate_state(1, np.uint64)[0] >> 1)


def torch_stream(seed: int, purpose: str, *path: int) -> torch.Generator:
    """A CPU torch generator for one purpose; draws made with it do not depend on the device in use."""
    return torch.Generator().manual_seed(integer(seed, purpose, *path))
