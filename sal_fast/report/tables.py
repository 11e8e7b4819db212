"""The tables, as polars frames: a line a run, a line a group, a line a round."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from sal_fast.report.runs import Run

METRICS = (
    "accuracy", "dice", "dice_floor", "aulc_accuracy", "aulc_dice", "human_maps", "generated_maps", "seconds"
)  # fmt: skip


def runs_table(runs: Sequence[Run]) -> pl.DataFrame:
    return _frame(
        {
            **_who(run),
            "finished": run.finished,
            "labelled": run.last.labelled,
            "human_maps": run.last.human_maps,
            "generated_maps": run.last.generated_maps,
            "empty_maps": run.last.empty_maps,
            "accuracy": run.last.accuracy,
            "dice": run.last.dice,
            "dice_floor": run.last.dice_floor,
            "aulc_accuracy": run.aulc("accuracy"),
            "aulc_dice": run.aulc("dice"),
            "seconds": run.seconds,
            "group": run.group,
            "run": run.name,
        }
        for run in runs
    )


def summary_table(table: pl.DataFrame) -> pl.DataFrame:
    """Mean and sigma (ddof=1) over the finished runs of each group; n may be 0, sigma needs two."""
    finished = pl.col("finished")
    values = [pl.col(name).cast(pl.Float64).filter(finished) for name in METRICS]
    return table.group_by("data", "group", "regime", "criterion", "probe", "arch", maintain_order=True).agg(
        finished.sum().alias("n"),
        (~finished).sum().alias("unfinished"),
        *(value.mean().name.suffix("_mean") for value in values),
        *(value.std(ddof=1).name.suffix("_std") for value in values),
    )


def rounds_table(runs: Sequence[Run]) -> pl.DataFrame:
    phases = dict.fromkeys(phase for run in runs for r in run.rounds for phase in r.timings)
    return _frame(
        {
            **_who(run),
            **{name: value for name, value in vars(r).items() if name != "timings"},
            **{f"seconds_{phase}": r.timings.get(phase) for phase in phases},
            "group": run.group,
            "run": run.name,
        }
        for run in runs
        for r in run.rounds
    )


def _who(run: Run) -> dict[str, Any]:
    config = run.config
    return {
        "data": run.dataset,
        "regime": run.regime,
        "criterion": run.criterion,
        "probe": config["probe"],
        "arch": config["arch"],
        "seed": run.seed,
    }


def _frame(rows: Any) -> pl.DataFrame:
    return pl.DataFrame(list(rows), infer_schema_length=None)
