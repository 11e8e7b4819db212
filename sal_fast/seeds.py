"""One tree of seeds: every random draw comes from a stream named by (seed, purpose, round).

A stream depends on nothing else: not on the regime, on earlier draws, on the number of devices, or on
whether the run was killed in between. So a run that is repeated gives the same, and runs of different regimes
with one seed are paired.
"""

import zlib

import numpy as np
import torch


def sequence(seed: int, purpose: str, *path: int) -> np.random.SeedSequence:
    """The node (seed, purpose, path...) of the tree."""
    return np.random.SeedSequence(entropy=seed, spawn_key=(zlib.crc32(purpose.encode()), *path))


def stream(seed: int, purpose: str, *path: int) -> np.random.Generator:
    """A numpy generator for one purpose and, for instance, one round."""
    return np.random.Generator(np.random.Philox(sequence(seed, purpose, *path)))


def integer(seed: int, purpose: str, *path: int) -> int:
    """An integer in 0..2^63-1, for libraries that take a seed of their own."""
    return int(sequence(seed, purpose, *path).generate_state(1, np.uint64)[0] >> 1)


def torch_stream(seed: int, purpose: str, *path: int) -> torch.Generator:
    """A torch generator for one purpose. It draws on the CPU, so draws do not depend on the device."""
    return torch.Generator().manual_seed(integer(seed, purpose, *path))
