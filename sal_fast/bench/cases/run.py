"""A whole small run, and where its time goes."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import sal_fast
from sal_fast.bench.suite import Case, Ratio, Setup, benchmark
from sal_fast.data import builtin
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config

STAGES = ("train", "evaluate", "score", "select", "annotate")
REST, START, WHOLE = "rest of the rounds", "before the rounds", "whole run"


@benchmark(rounds=1, unit="runs")
def run(setup: Setup, epochs: int = 3, criterion: str = "badge", image_size: int = 64) -> Iterator[Case]:
    """A whole run on the built-in set in the regime sal, and the shares of its stages.

    It has three rounds, with 24, 48 and 72 labelled images. The interpretability model annotates the last
    query.

    Args:
        epochs: epochs of each training.
        criterion: how images are chosen for labelling.
        image_size: pixels a side.
    """
    if setup.trace is not None:
        raise InputError("--trace: a whole run is too long for a trace; `sal-fast bench step` has one")
    asked = {"epochs": epochs, "criterion": criterion, "image_size": image_size, "stop_fraction": 0.3}
    Config.of(asked)  # raises InputError before anything costly is made
    builtin.load()  # makes the files of the set, which is no part of a run's time

    def parts() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            config = Config.of({**asked, "device": str(setup.place), "out": str(Path(folder) / "run")})
            begin = time.perf_counter()
            rounds = sal_fast.run(config, on_round=lambda run, finished: None).rounds
            whole = time.perf_counter() - begin
        stages = {name: sum(one.timings.get(name, 0.0) for one in rounds) for name in STAGES}
        inside = sum(one.seconds for one in rounds)
        return {**stages, REST: inside - sum(stages.values()), START: whole - inside, WHOLE: whole}

    yield Case(parts=parts, ratios=[Ratio(name, WHOLE) for name in (*STAGES, REST, START)])
