from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sal_fast.experiment.config import Config
from sal_fast.experiment.run import run


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the runs of a sweep have: another number may change last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Config], Path]:
    """The folder of an undisturbed run with nobody beside it; each is made once."""
    root = tmp_path_factory.mktemp("alone")
    made: dict[str, Path] = {}

    def go(config: Config) -> Path:
        options = {**vars(config), "out": None}
        if str(options) not in made:
            made[str(options)] = run(Config.of({**options, "out": str(root / str(len(made)))})).path
        return made[str(options)]

    return go
