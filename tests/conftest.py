"""Small data sets in the official layout, made on the spot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

# with pytest-xdist each process has one core
torch.set_num_threads(
    min(1 if "PYTEST_XDIST_WORKER" in os.environ else 2, int(os.environ.get("OMP_NUM_THREADS", "2")))
)

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def write_folder(root: Path, per_class: int = 10, size: int = 40) -> Path:
    """images/<class>/*.jpg with a coloured box on grey noise, masks/<class>/*.png with the box."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for kind in ("images", "masks"):
            (root / kind / name).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            pixels = rng.integers(90, 160, (size, size, 3)).astype(np.uint8)
            mask = np.zeros((size, size), dtype=np.uint8)
            y, x = rng.integers(0, size // 2, 2)
            mask[y : y + size // 2, x : x + size // 2] = 255
            pixels[mask > 0] = colour
            Image.fromarray(pixels).save(root / "images" / name / f"{index:03d}.jpg", quality=95)
            Image.fromarray(mask).save(root / "masks" / name / f"{index:03d}.png")
    return root


DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
        ],
    ),
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device that exists; the others are reported as skipped."""
    return torch.device(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty images of three classes with masks."""
    return write_folder(tmp_path / "pool")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, for tests that only read it."""
    return write_folder(tmp_path_factory.mktemp("shared") / "pool")


@pytest.fixture(scope="session")
def make_folder() -> Callable[..., Path]:
    return write_folder
