from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from experiment_runs import TINY

import sal_fast

SMALL = f"{Path(__file__).parents[1] / 'helpers/small_network.py'}:Small"


@pytest.fixture(scope="session")
def small(shared_folder: Path) -> dict[str, Any]:
    """The options of a run that takes a moment."""
    return {
        **TINY, "data": str(shared_folder), "arch": SMALL, "output_stride": 32, "epochs": 1, "regime": "b1",
        "augment": "standard",
    }  # fmt: skip


@pytest.fixture(scope="session")
def finished(small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> sal_fast.Run:
    """A finished run, whose images are stored larger than its network sees them. Tests only read it."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return sal_fast.run(sal_fast.Config(**small, out=str(out)), on_round=lambda run, last: None)


@pytest.fixture(scope="session")
def model(finished: sal_fast.Run) -> sal_fast.SalModel:
    return finished.model()
