"""How many runs a cluster takes at a time, and what it is refused for; Ray's part is played."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from sal_fast.errors import InputError
from sal_fast.sweep import slots
from sal_fast.sweep.cluster import Cluster, connected
from sal_fast.sweep.slots import Node, Slot


class Ray:
    def __init__(self, *nodes: Node) -> None:
        self._nodes = [{"CPU": node.cpus, "GPU": node.gpus} for node in nodes]

    def nodes(self) -> list[dict[str, Any]]:
        dead = {"Alive": False, "Resources": {"CPU": 1000, "GPU": 1000}}
        return [dead, *({"Alive": True, "Resources": node} for node in self._nodes)]

    def remote(self, **options: Any) -> Any:
        return lambda function: function


ALL = partial(Slot.on, cpus=None, gpus=None)
CPUS, GPUS = Node(8), Node(16, 2)


@pytest.mark.parametrize(
    ("nodes", "asked", "cpu_only", "got"),
    [
        ((CPUS,), (None, None), False, (8, 1, 0.0)),
        ((CPUS, CPUS), (3, None), False, (4, 3, 0.0)),
        ((CPUS, GPUS), (None, None), False, (2, 8, 1.0)),
        ((CPUS, GPUS), (None, 0.25), False, (8, 2, 0.25)),
        ((GPUS,), (8, 0.25), False, (2, 8, 0.25)),
        ((GPUS,), (1, 0.3), False, (6, 1, 0.3)),
        ((GPUS,), (None, 0.0), False, (16, 1, 0.0)),
        ((CPUS, GPUS), (None, None), True, (24, 1, 0.0)),
        ((Node(64, 1),), (None, 1.0), False, (1, 8, 1.0)),
        ((Node(2, 4),), (None, 0.5), False, (2, 1, 0.5)),
    ],
)
def test_slots(nodes: Any, asked: Any, cpu_only: bool, got: Any) -> None:
    cpus, gpus = asked
    cluster = Cluster(Ray(*nodes), partial(Slot.on, cpus=cpus, gpus=gpus, cpu_only=cpu_only))
    cluster.check()
    assert (cluster.count(), cluster.slot.cpus, cluster.slot.gpus) == got


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "cores", lambda: 16)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert Node.here() == Node(16, 2)


def test_what_no_node_has() -> None:
    with pytest.raises(
        InputError, match=r"no node has 1 CPUs and 1 GPUs for a run \(there are: 8 CPUs, 0 GPUs"
    ):
        Cluster(Ray(CPUS), partial(Slot.on, cpus=None, gpus=1.0)).check()
    with pytest.raises(InputError, match="no node has 9 CPUs"):
        Cluster(Ray(CPUS), partial(Slot.on, cpus=9, gpus=None)).check()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "head", "127.0.0.1:no", ""])
def test_nobody_at_the_address(address: str) -> None:
    pytest.importorskip("ray", reason="pip install 'sal-fast[ray]'")
    with pytest.raises(InputError, match=r"--address .*expected the host:port"), connected(address, ALL):
        pass
