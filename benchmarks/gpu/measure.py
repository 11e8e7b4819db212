"""Measure what no single benchmark of `sal-fast bench` does, or what must fit into a minute.

    ops DTYPE NAME ...   single ops at their usual sizes, without the variants that torch.compile makes
    training             a step of ResNet-50 with and without the saliency loss, eager and as a CUDA graph
    selection            k-center and BADGE of 2,000 from 1.28 million rows of 2,048 features
    profile              eight ops once each, between the calls that start and stop a profiler

Each writes JSON files to the folder that --out names, as soon as it knows something. With --device cpu the
sizes are small, for a dry run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sal_fast import bench, ops
from sal_fast.bench import suite
from sal_fast.bench.clock import Timer, in_turn, on_a_gpu, spread
from sal_fast.bench.result import surroundings

SEED = 0
ROUNDS = 7
PROFILED = (
    "cam_head", "saliency_loss", "ssim", "topn_dice", "uncertainty", "crop", "minmax_normalize", "cyborg_loss"
)  # fmt: skip


class Report:
    """A JSON file that is written anew with each figure."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path = path
        self.document: dict[str, Any] = {"schema": 1, **surroundings(device), "figures": []}

    def add(self, **figure: Any) -> None:
        """Add a figure, and print it."""
        self.document["figures"].append(figure)
        self.path.write_text(json.dumps(self.document, indent=1) + "\n")
        print(figure, flush=True)


def measure_ops(device: torch.device, out: Path, names: list[str]) -> None:
    """Measure single ops by the suite. One that fails is reported, and the next one runs."""
    dtype, *benchmarks = names
    failed = []
    for name in benchmarks:
        sizes = small(name) if device.type == "cpu" else {}
        options = {"device": str(device), "dtype": dtype, "rounds": 1 if sizes else ROUNDS, **sizes}
        path = out / f"{name}-{dtype}.json"
        try:
            document = bench.run(name, out=path, skip="compile", **options)
        except Exception as error:  # whatever it is, the next op is measured
            failed.append(f"{name}: {error}")
            continue
        for result in document["results"]:
            print(name, result["case"], result["variant"], f"{result['ms']:.4f} ms", flush=True)
    if failed:
        raise SystemExit("\n".join(failed))


def measure_training(device: torch.device, out: Path, names: list[str]) -> None:
    """Time a step of training at the paper's batch size, and at one that fills the GPU.

    The steps are the network's forward and backward, the loss and the optimizer, in bfloat16 by autocast. A
    CUDA graph of the step shows how much of it the host's launches cost.
    """
    from sal_fast.models import build
    from sal_fast.train import Recipe, Step

    report = Report(out / "training-step.json", device)
    dry = device.type == "cpu"
    arch, size = ("resnet18", 64) if dry else ("resnet50", 224)
    recipe = Recipe(
        epochs=1, batch_size=1, lr=0.005, lr_step=1, augment="standard", probe="cam", map_size=None,
        saliency_loss="ssim_l1", seed=SEED,
    )  # fmt: skip
    for batch_size in (2,) if dry else (20, 256):
        draws = torch.Generator(device).manual_seed(SEED)
        images = torch.rand(batch_size, 3, size, size, generator=draws, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.randint(200, (batch_size,), generator=draws, device=device)
        maps = torch.rand(batch_size, size, size, generator=draws, device=device) > 0.7
        batch = images, labels, maps, torch.ones(batch_size, dtype=torch.bool, device=device)
        timers = {}
        for name, alpha in (("cross-entropy", 1.0), ("saliency", 0.5)):
            model = build(arch, 200, output_stride=16 if dry else 32, precision="bfloat16").to(device)
            step = Step(model, alpha=alpha, recipe=recipe)
            timers[f"{name}, eager"] = Timer([partial(step, *batch)], device)
            if not dry:
                timers[f"{name}, graph"] = Timer([captured(step, batch)], device)
        for name, seconds in in_turn(timers, 2 if dry else ROUNDS).items():
            low, median, high = (1e3 * value for value in spread(seconds))
            ms = {"ms": median, "ms_p10": low, "ms_p90": high}
            report.add(batch_size=batch_size, step=name, **ms, **on_a_gpu(timers[name]))


def captured(step: Any, batch: tuple[Tensor, ...]) -> Callable[[], None]:
    """Return the replay of a CUDA graph of a whole step."""

    def once() -> None:
        step.optimizer.zero_grad(set_to_none=False)
        step.loss(*batch).backward()
        step.optimizer.step()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            once()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        once()
    replay: Callable[[], None] = graph.replay
    return replay


def measure_selection(device: torch.device, out: Path, names: list[str]) -> None:
    """Time one selection from a pool of the size of ImageNet, after a small one that loads the kernels."""
    report = Report(out / "selection-large.json", device)
    dry = device.type == "cpu"
    rows, columns, picks = (2000, 32, 20) if dry else (1_281_167, 2048, 2000)
    draws = torch.Generator(device).manual_seed(SEED)
    features = torch.empty(rows, columns, device=device).normal_(generator=draws).relu_()
    probs = torch.empty(rows, 1000, device=device).normal_(generator=draws).mul_(3).softmax(1)
    selections = {
        "kcenter": lambda n, k: ops.kcenter(features[:n], k, centers=features[-100:]),
        "badge": lambda n, k: ops.badge(probs[:n], features[:n], k, seed=SEED),
    }
    for name, select in selections.items():
        select(1000, 10)
        synchronize(device)
        begin = time.perf_counter()
        chosen = select(rows - 100, picks)
        synchronize(device)
        seconds = time.perf_counter() - begin
        unique = len(chosen.unique()) == picks
        report.add(op=name, rows=rows, columns=columns, picks=picks, seconds=seconds, unique=unique)


def profile(device: torch.device, out: Path, names: list[str]) -> None:
    """Run eight ops once under a profiler, after a call that it does not see."""
    dry = device.type == "cpu"
    for name in PROFILED:
        benchmark = suite.load(name)
        setup, sizes = benchmark.setup(device=str(device)), small(name) if dry else {}
        cases = list(benchmark.function(setup, **sizes))
        # One case of each op: with its gradient, if it has one.
        case = next((case for case in cases if case.name.endswith("forward-backward")), cases[0])
        inputs, ours = case.inputs(SEED), next(iter(case.variants.values()))
        ours(*inputs)
        synchronize(device)
        if not dry:
            torch.cuda.cudart().cudaProfilerStart()
        ours(*inputs)
        synchronize(device)
        if not dry:
            torch.cuda.cudart().cudaProfilerStop()
        print(name, case.name, flush=True)


def small(name: str) -> dict[str, Any]:
    """Return the sizes at which the tests run a benchmark."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "helpers"))
    from bench_sizes import SMALL

    return SMALL[name]


def synchronize(device: torch.device) -> None:
    """Wait for the GPU, if there is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


MEASURES = {
    "ops": measure_ops,
    "training": measure_training,
    "selection": measure_selection,
    "profile": profile,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the results")
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("names", nargs="*", help="for ops: the dtype, and the benchmarks")
    options = parser.parse_args()
    MEASURES[options.measure](options.device, options.out, options.names)


if __name__ == "__main__":
    main()
