from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from experiment_runs import TINY

from sal_fast.experiment.config import Config
from sal_fast.experiment.run import run


@pytest.fixture(scope="session")
def tiny(shared_folder: Path) -> Callable[..., Path]:
    """Run in this process; returns the run folder."""

    def go(out: Path, **options: Any) -> Path:
        return run(Config.of({**TINY, "data": str(shared_folder), "out": str(out), **options})).path

    return go
