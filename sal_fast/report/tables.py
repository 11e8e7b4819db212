"""The tables, as polars frames: a line for a run, a group, a round, what maps gained, what people spent."""

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from sal_fast.experiment.record import COUNTS, FIGURES, SECONDS, People
from sal_fast.report.differences import MEASURES, Pairs, gains, over_baseline
from sal_fast.report.runs import Run, by_panel, compared_options

METRICS = (*FIGURES, "aulc_accuracy", "aulc_dice", "human_maps", "generated_maps", "seconds")
CLASS_FIGURES = ("recall", "precision", "f1", "dice", "iou", "pointing")
PEOPLE = (*COUNTS, "seconds", "idle_seconds")
APART = ("timings", "memory", "people", "per_class")  # fields of a round that are tables themselves


def runs_table(runs: Sequence[Run]) -> pl.DataFrame:
    last = ("labelled", "human_maps", "generated_maps", "empty_maps", *FIGURES)
    return frame(
        {
            **_who(run),
            "finished": run.finished,
            **{name: getattr(run.last, name) for name in last},
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
    return table.group_by("data", "group", "regime", *compared_options(), maintain_order=True).agg(
        finished.sum().alias("n"),
        (~finished).sum().alias("unfinished"),
        *(value.mean().name.suffix("_mean") for value in values),
        *(value.std(ddof=1).name.suffix("_std") for value in values),
    )


def classes_table(runs: Sequence[Run]) -> pl.DataFrame:
    """The figures of each class in the last round, a line for each run and class."""
    return frame(
        {
            **_who(run),
            "class": name,
            **dict(zip(vars(found), values, strict=True)),
            "group": run.group,
            "run": run.name,
        }
        for run in runs
        if (found := run.last.per_class)
        for name, values in zip(run.classes, zip(*vars(found).values(), strict=True), strict=True)
    )


def mean_classes(table: pl.DataFrame) -> pl.DataFrame:
    """The means over the runs of each group for each class; a run without a figure does not count there."""
    if not len(table):
        return table
    figures = [pl.col(name).mean() for name in ("images", *CLASS_FIGURES)]
    return table.group_by("data", "group", "class", maintain_order=True).agg(pl.len().alias("n"), *figures)


def rounds_table(runs: Sequence[Run]) -> pl.DataFrame:
    phases = dict.fromkeys(phase for run in runs for one in run.rounds for phase in one.timings)
    people = (*COUNTS, *SECONDS) if any(one.people for run in runs for one in run.rounds) else ()
    return frame(
        {
            **_who(run),
            **{name: value for name, value in vars(one).items() if name not in APART},
            **{f"people_{name}": getattr(one.people, name, None) for name in people},
            **{f"seconds_{phase}": one.timings.get(phase) for phase in phases},
            "group": run.group,
            "run": run.name,
        }
        for run in runs
        for one in run.rounds
    )


def gains_table(runs: Sequence[Run]) -> pl.DataFrame:
    """The human maps spent, and what they gained over b1: mean and sigma over the seeds that both have."""
    return frame(_gain(pairs) for panel in by_panel(runs).values() for pairs in over_baseline(panel))


def _gain(pairs: Pairs) -> dict[str, Any]:
    first = pairs[0][0]
    gained = {name: pl.Series(gains(pairs, name)) for name in MEASURES}
    clocks = [run.last.people.seconds for run, _ in pairs if run.last.people]
    return {
        **{name: value for name, value in _who(first).items() if name not in ("regime", "seed")},
        "panel": first.panel,
        "line": first.line,
        "n": len(pairs),
        "human_maps": pl.Series([run.last.human_maps for run, _ in pairs]).mean(),
        **{f"{name}_mean": some.mean() for name, some in gained.items()},
        **{f"{name}_std": some.std() for name, some in gained.items()},
        "people_seconds": pl.Series(clocks, dtype=pl.Float64).mean(),
    }


def people_table(runs: Sequence[Run]) -> pl.DataFrame:
    """What people spent on each run that they took part in; seconds are None where nobody measured them."""
    return frame(
        {
            **_who(run),
            **{name: value for name, value in vars(people).items() if name in PEOPLE},
            **_seconds_each(people),
            **_saved(people),
            "kappa": people.agreement and people.agreement.kappa,
            "map_dice": people.agreement and people.agreement.dice,
            "run": run.name,
        }
        for run in runs
        if (people := run.last.people)
    )


def kinds_table(runs: Sequence[Run]) -> pl.DataFrame:
    """The answers of each kind in each run, and their time."""
    return frame(
        {
            **_who(run),
            "kind": kind,
            "answers": spent.answers,
            "share": spent.answers / sum(one.answers for one in people.by_kind.values()),
            "timed": spent.timed,
            "seconds": spent.seconds,
            "seconds_each": _share(spent.seconds, spent.timed),
            "run": run.name,
        }
        for run in runs
        if (people := run.last.people)
        for kind, spent in people.by_kind.items()
    )


def persons_table(runs: Sequence[Run]) -> pl.DataFrame:
    """The work of each person in each run."""
    return frame(
        {
            **_who(run),
            "person": person.name,
            **{name: value for name, value in vars(person).items() if name != "name"},
            "seconds_each": _share(person.seconds, person.timed),
            "run": run.name,
        }
        for run in runs
        if (people := run.last.people)
        for person in people.by_person
    )


def pairs_table(runs: Sequence[Run]) -> pl.DataFrame:
    """The agreement of each two people in each run."""
    return frame(
        {**_who(run), **vars(pair), "run": run.name}
        for run in runs
        if (people := run.last.people) and people.agreement
        for pair in people.agreement.pairs
    )


def _seconds_each(people: People) -> dict[str, float | None]:
    """Seconds for an image: for any, for one without a map, for one with a map."""
    without = people.labelled - people.maps
    return {
        "seconds_per_item": _share(people.seconds, people.labelled),
        "seconds_per_label": _share(people.label_seconds, without),
        "seconds_per_map": _share(people.map_seconds, people.maps),
    }


def _saved(people: People) -> dict[str, float | None]:
    """The seconds saved by classes alone after the hand-over and by correcting maps, with their intervals.

    An older sal-fast kept sums alone. For its runs we multiply the difference of the mean seconds with and
    without a map by the number of images without one.
    """
    ends = ("seconds", "low", "high")
    handed_over = {name: getattr(people.saved, name, None) for name in ends}
    if not people.by_person:
        each = _seconds_each(people)
        label, drawn = each["seconds_per_label"], each["seconds_per_map"]
        if label is not None and drawn is not None:
            handed_over["seconds"] = (drawn - label) * (people.labelled - people.maps)
    corrected = {name: getattr(people.corrected, name, None) for name in ends}
    return {
        "seconds_saved": handed_over["seconds"],
        "seconds_saved_low": handed_over["low"],
        "seconds_saved_high": handed_over["high"],
        "corrected_saved": corrected["seconds"],
        "corrected_saved_low": corrected["low"],
        "corrected_saved_high": corrected["high"],
    }


def _share(total: float | None, n: int) -> float | None:
    return total / n if total is not None and n else None


def _who(run: Run) -> dict[str, Any]:
    compared = {name: run.setting(name) for name in compared_options()}
    return {"data": run.dataset, "regime": run.regime, **compared, "seed": run.seed}


def frame(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), infer_schema_length=None)
