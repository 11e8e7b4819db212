from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sal_fast.experiment.config import Config
from sal_fast.experiment.run import run


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The runs of a sweep have one thread too; another number may change last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Config], Path]:
    """A function that gives the folder of a run which nothing disturbed. Each run is made once."""
    root = tmp_path_factory.mktemp("alone")
    made: dict[str, Path] = {}

    def go(config: Config) -> Path:
        key = str(config.options() | {"out": None})
        if key not in made:
            made[key] = run(config.replace(out=str(root / str(len(made))))).path
        return made[key]

    return go
