"""Runs of the experiment in processes that share them: `python rank_process.py FOLDER` is one of them.

FOLDER/options.json lists the runs. For each the ranks meet at another port, as torchrun would arrange.
If a run waits for people, the first rank answers as the data set would, and the list may name the run again.
With `takes_over_after` the model of a run with `human_budget: auto` takes over after so many trials, and with
`ends_after` labelling ends after so many rounds (`stop_fraction: auto`).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(folder: Path, count: int, runs: list[dict[str, Any]]) -> list[subprocess.Popen[str]]:
    """Start `count` processes that go through these runs together, one thread each."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = [free_port() for _ in runs]
    (folder / "options.json").write_text(json.dumps([[*pair] for pair in zip(ports, runs, strict=True)]))
    return [
        subprocess.Popen(
            [sys.executable, "-P", __file__, str(folder)],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def together(folder: Path, count: int, runs: list[dict[str, Any]]) -> list[str]:
    """Wait for such processes, and return their standard outputs. All must end well."""
    from patience import PATIENCE  # the processes themselves do not have this folder on their path

    processes = start(folder, count, runs)
    try:
        said = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, said, strict=True):
        assert process.returncode == 0, errors
    return [out for out, _ in said]


def main(folder: Path) -> None:
    sys.path.append(str(Path(__file__).parent))
    from experiment_runs import answer

    from sal_fast.experiment import budget, stopping
    from sal_fast.experiment.answers.people import Waiting
    from sal_fast.experiment.config import Config
    from sal_fast.experiment.record import RunFolder
    from sal_fast.experiment.run import run

    for port, options in json.loads((folder / "options.json").read_text()):
        os.environ["MASTER_PORT"] = str(port)
        queries = options.pop("takes_over_after", None)
        if queries is not None:  # whatever the trials say: they hang on how small trainings fall
            budget.takes_over = lambda trials, queries=queries: len(trials) - trials.count(None) >= queries
        last = options.pop("ends_after", None)
        if last is not None:
            stopping.ends = lambda kappas, gain, last=last: len(kappas) == last
        try:
            run(Config.of(options))
        except Waiting as waiting:  # no rank ends before the first has written its round: torchrun ends all
            lines = len(RunFolder(Path(options["out"])).rounds())
            if lines != waiting.query:
                raise SystemExit(f"rank {os.environ['RANK']}: {lines} rounds are there") from None
            if os.environ["RANK"] == "0":
                answer(Path(options["out"]), Path(options["data"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
