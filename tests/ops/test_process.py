"""The ops and the state of the process: forks, threads, and torch's settings."""

from __future__ import annotations

import threading

import pytest
import torch
from precision import run_python

from sal_fast import ops, probes

FORK = """
import os, signal, torch
{before}
torch.set_num_threads(2)
(torch.randn(600, 600) @ torch.randn(600, 600)).exp().sum()  # torch has its threads now
maps, logits = torch.rand(4096, 8, 8), torch.randn(4096, 100)
{between}
if (child := os.fork()) == 0:
    signal.alarm(60)  # a child that waits for threads which it does not have would wait forever
    import sal_fast._C as core
    out = torch.empty(4096)
    fields = dict(logits=logits, dtype=0, rows=4096, columns=100, row_stride=100, kind=0, out=out)
    core.uncertainty_cpu(fields, 2)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.parametrize(
    ("before", "between"),
    [("", ""), ("from sal_fast import ops", ""), ("from sal_fast import ops", "ops.uncertainty(logits)")],
    ids=["loaded by the child", "loaded before", "used before"],
)
def test_the_first_call_in_a_forked_child(before: str, between: str) -> None:
    run_python(FORK.format(before=before, between=between))


def test_two_threads_put_torchs_precision_back() -> None:
    """The first to enter saves the setting; the last to leave restores it."""
    inside, leave = threading.Barrier(2), threading.Event()
    features = torch.rand(400, 16)

    def first(done: int, total: int) -> None:
        if not leave.is_set():
            inside.wait(60)
            leave.wait(60)

    torch.set_float32_matmul_precision("medium")
    try:
        waiting = threading.Thread(target=lambda: ops.kcenter(features, 30, progress=first))
        waiting.start()
        inside.wait(60)
        ops.kcenter(features, 30)  # it leaves while the other is inside
        assert torch.get_float32_matmul_precision() == "highest"
        leave.set()
        waiting.join()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        leave.set()
        torch.set_float32_matmul_precision("highest")


def test_one_model_is_explained_by_several_threads() -> None:
    """Each thread gets the maps of its own images, with and without a search for the layer."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(inplace=True),
        torch.nn.Conv2d(8, 6, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(6, 4),
    ).eval()  # fmt: skip
    batches = [torch.rand(2, 3, 16, 16) for _ in range(4)]
    layers = [None, "4", None, "1"]
    expected = [
        probes.explain(model, one, layer=layer).maps for one, layer in zip(batches, layers, strict=True)
    ]
    wrong: list[object] = []

    def explain(index: int) -> None:
        try:
            for _ in range(10):
                found = probes.explain(model, batches[index], layer=layers[index]).maps
                if not torch.equal(found, expected[index]):
                    wrong.append(index)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=explain, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
