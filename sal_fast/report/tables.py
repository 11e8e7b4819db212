"""The tables, as polars frames: a line a run, a group, a round, what maps gained, what people spent."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from sal_fast.report.differences import MEASURES, couples, gains, paired
from sal_fast.report.runs import Run, by_panel

PEOPLE = ("labelled", "maps", "skipped", "annotators", "seconds", "label_seconds", "map_seconds")
METRICS = (
    "accuracy", "dice", "dice_floor", "aulc_accuracy", "aulc_dice", "human_maps", "generated_maps", "seconds"
)  # fmt: skip


def runs_table(runs: Sequence[Run]) -> pl.DataFrame:
    return frame(
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
    people = any(r.people for run in runs for r in run.rounds)
    return frame(
        {
            **_who(run),
            **{name: value for name, value in vars(r).items() if name not in ("timings", "people")},
            **({f"people_{name}": getattr(r.people, name, None) for name in PEOPLE} if people else {}),
            **{f"seconds_{phase}": r.timings.get(phase) for phase in phases},
            "group": run.group,
            "run": run.name,
        }
        for run in runs
        for r in run.rounds
    )


def gains_table(runs: Sequence[Run]) -> pl.DataFrame:
    """Human maps spent and what was gained over b1 by them: mean and sigma over the seeds that both have."""
    rows = []
    for panel in by_panel(runs).values():
        for regime in dict.fromkeys(run.regime for run in panel if run.regime != "b1"):
            for members, b1 in couples(panel, regime, "b1"):
                pairs = paired(members, b1)
                gained = {name: pl.Series(gains(pairs, measure)) for name, measure in MEASURES.items()}
                clocks = [run.last.people.seconds for run, _ in pairs if run.last.people]
                if pairs:
                    rows.append(
                        {
                            **{k: v for k, v in _who(members[0]).items() if k not in ("regime", "seed")},
                            "panel": members[0].panel,
                            "line": members[0].line,
                            "n": len(pairs),
                            "human_maps": pl.Series([run.last.human_maps for run, _ in pairs]).mean(),
                            **{f"{name}_mean": some.mean() for name, some in gained.items()},
                            **{f"{name}_std": some.std() for name, some in gained.items()},
                            "people_seconds": pl.Series(clocks, dtype=pl.Float64).mean(),
                        }
                    )
    return frame(rows)


def people_table(runs: Sequence[Run]) -> pl.DataFrame:
    """What people spent on each run that they took part in; seconds, None where no clock ran."""
    return frame(
        {
            **_who(run),
            "labelled": people.labelled,
            "maps": people.maps,
            "skipped": people.skipped,
            "annotators": people.annotators,
            "seconds": people.seconds,
            "seconds_per_item": people.per_item,
            "seconds_per_label": people.per_label,
            "seconds_per_map": people.per_map,
            "seconds_saved": people.saved,
            "run": run.name,
        }
        for run in runs
        if (people := run.last.people)
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


def frame(rows: Any) -> pl.DataFrame:
    return pl.DataFrame(list(rows), infer_schema_length=None)
