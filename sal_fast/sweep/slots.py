"""How many runs fit on a machine or a cluster at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sal_fast.data.decode.base import cores

MOST_CPUS = 8  # cores of a run beside a GPU, unless the user asks for more
ROUNDING = 1e-9  # shares such as 0.1 are not exact


@dataclass(frozen=True)
class Node:
    """One machine: its CPU cores and its GPUs."""

    cpus: float
    gpus: float = 0.0

    @classmethod
    def here(cls) -> Node:
        """This machine."""
        return cls(cores(), torch.cuda.device_count())


@dataclass(frozen=True)
class Slot:
    """What one run takes of a node: CPU cores (and as many threads), and a share of one GPU (0 to 1)."""

    cpus: int
    gpus: float

    @classmethod
    def on(cls, nodes: list[Node], cpus: int | None, gpus: float | None, cpu_only: bool = False) -> Slot:
        """The slot that a user asked for; None is replaced by what suits the nodes.

        gpus: 1 if any node has a GPU and the runs may use it, else 0. cpus: 1 for runs without a GPU; else
        the cores that fall to each run on the node with the fewest, at most `MOST_CPUS`.
        """
        if gpus is None:
            gpus = float(not cpu_only and any(node.gpus for node in nodes))
        if cpus is None:
            each = [
                int(node.cpus / (node.gpus * _runs_per_gpu(gpus))) for node in nodes if gpus and node.gpus
            ]
            cpus = max(1, min([MOST_CPUS, *each])) if each else 1
        return cls(cpus, gpus)

    def fits(self, node: Node) -> int:
        """How many runs the node can take at a time."""
        count = int(node.cpus / self.cpus + ROUNDING)
        return min(count, int(node.gpus) * _runs_per_gpu(self.gpus)) if self.gpus else count


def _runs_per_gpu(share: float) -> int:
    return int(1 / share + ROUNDING)
