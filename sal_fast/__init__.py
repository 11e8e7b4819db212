"""Saliency-guided active learning, and the fused ops under it.

    import sal_fast

    run = sal_fast.run(sal_fast.Config(data="photographs", regime="sal"))
    run.rounds[-1].accuracy
    model = sal_fast.load_model("runs/photographs-sal-margin-s0")
    maps = model.explain(model.preprocess(["photograph.jpg"]))

Importing this module is cheap: torch is imported when a name that needs it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sal_fast._native import BuildInfo, build_info
    from sal_fast.errors import InputError
    from sal_fast.experiment.config import Config
    from sal_fast.experiment.loading import Run, load
    from sal_fast.experiment.record import Round
    from sal_fast.experiment.run import Waiting, run
    from sal_fast.trained.model import SalModel, load_model

    __version__: str

_PLACES = {
    "BuildInfo": "sal_fast._native",
    "Config": "sal_fast.experiment.config",
    "InputError": "sal_fast.errors",
    "Round": "sal_fast.experiment.record",
    "Run": "sal_fast.experiment.loading",
    "SalModel": "sal_fast.trained.model",
    "Waiting": "sal_fast.experiment.run",
    "build_info": "sal_fast._native",
    "load": "sal_fast.experiment.loading",
    "load_model": "sal_fast.trained.model",
    "run": "sal_fast.experiment.run",
}
__all__ = [
    "BuildInfo", "Config", "InputError", "Round", "Run", "SalModel", "Waiting", "__version__", "build_info",
    "load", "load_model", "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("sal-fast")
    elif name in _PLACES:
        value = getattr(importlib.import_module(_PLACES[name]), name)
    else:
        raise AttributeError(f"module 'sal_fast' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
