"""How torch's threads wait between operators. It imports no torch, which reads the choice when it is loaded.

OpenMP's threads spin for a while after each operator, which saves the time to wake them on a quiet machine.
If more threads want to run than there are cores, the ones that spin take the cores from those that work. Two
processes that train a ResNet-18 with two threads each on two cores made 2.4 steps a second each, and 4.8 each
with `OMP_WAIT_POLICY=passive`. One alone made 8.8 steps a second, and 7.7 with passive waiting.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

POLICY = "OMP_WAIT_POLICY"
OWN = (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # with one of these the user has chosen
SPARE = 0.5  # of a core, which any machine uses for other things


def choose(
    environment: MutableMapping[str, str] | None = None, load: float | None = None, cores: int | None = None
) -> str:
    """Choose passive waiting if the cores are wanted by others too; return a sentence that says so, or "".

    Args:
        environment: the environment variables, which are changed. `LOCAL_WORLD_SIZE` is the number of
            processes that torchrun starts here, and `OMP_NUM_THREADS` the threads of each.
        load: the mean number of threads that wanted to run in the last minute.
        cores: the cores that this process may use.
    """
    environment = os.environ if environment is None else environment
    if any(name in environment for name in OWN):
        return ""
    cores = cores or len(os.sched_getaffinity(0))
    load = os.getloadavg()[0] if load is None else load
    processes = _number(environment, "LOCAL_WORLD_SIZE", 1)
    threads = processes * _number(environment, "OMP_NUM_THREADS", cores)
    if threads == processes or threads + load <= cores + SPARE:
        return ""
    environment[POLICY] = "passive"
    return (
        f"{threads} threads of this run and a load of {load:.1f} share {cores} cores, so threads wait "
        f"passively ({POLICY}=passive; set it to active to have them spin)"
    )


def _number(environment: MutableMapping[str, str], name: str, usual: int) -> int:
    text = environment.get(name, "").split(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) > 0 else usual
