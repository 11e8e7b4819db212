"""What maps are worth: people's own maps, and beside them control maps, no maps, and maps of no model.

A regime's runs with people's maps are set against its runs with `--control-maps`, against b1, and against two
maps that look at no image: a disc in the middle, and the mean of the training masks.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from sal_fast.report import differences
from sal_fast.report.differences import BASELINE, MEASURES, Pairs, interval, paired
from sal_fast.report.runs import Run, alike, by_group, by_panel

OWN = "people's own"
SHOWN = ("aulc_dice", "dice", "aulc_accuracy", "accuracy")
# The entries of summary.json that hold the Dice of maps which look at no image, and their names in the table.
REFERENCES = {"dice_disc": "a disc in the middle", "dice_mean_mask": "the mean training mask"}


def is_control(run: Run) -> bool:
    """True if other maps took the place of people's in training."""
    return bool(run.config.control_maps != "none")


def table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """In each panel, a row for each kind of maps that a regime with control runs was trained with.

    A row has the mean and sigma of its finished runs, and how much higher people's own maps are: the mean of
    the paired differences over seeds and its 95 % interval.
    """
    rows: list[dict[str, Any]] = []
    for panel in by_panel(runs).values():
        finished = [run for run in panel if run.finished]
        groups = [*by_group(finished).values()]
        for own in groups:
            controls = [group for group in groups if is_control(group[0]) and _differ_in_maps(own, group)]
            if not is_control(own[0]) and controls:
                rows += _rows(finished, own, controls)
    return rows


def _differ_in_maps(a: Sequence[Run], b: Sequence[Run]) -> bool:
    return alike(a[0], b[0], but=("control_maps",))


def _rows(panel: Sequence[Run], own: list[Run], controls: list[list[Run]]) -> Iterator[dict[str, Any]]:
    yield _row(own, OWN, own, [])
    for group in controls:
        yield _row(own, group[0].config.control_maps, group, paired(own, group))
    for pairs in differences.couples(
        [*own, *(run for run in panel if run.regime == BASELINE)], own[0].regime, BASELINE
    ):
        yield _row(own, f"none ({BASELINE})", [run for _, run in pairs], pairs)
    for name, shown in {**REFERENCES, "dice_floor": "a random map"}.items():
        known = [(run, value) for run in own if (value := (run.summary or {}).get(name)) is not None]
        gained = [run.last.dice - value for run, value in known if run.last.dice is not None]
        if known:
            values = {"dice": [value for _, value in known]}
            yield _shown(own[0], shown, len(known), values, {"dice": gained})


def _row(own: list[Run], maps: str, group: Sequence[Run], pairs: Pairs) -> dict[str, Any]:
    values = {name: [v for run in group if (v := MEASURES[name](run)) is not None] for name in SHOWN}
    return _shown(own[0], maps, len(group), values, {name: differences.gains(pairs, name) for name in SHOWN})


def _shown(
    own: Run, maps: str, n: int, values: dict[str, list[float]], gained: dict[str, list[float]]
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "data": own.dataset,
        "panel": own.panel,
        "regime": own.regime,
        "maps": maps,
        "n": n,
    }
    for name in SHOWN:
        series = pl.Series(values.get(name, []), dtype=pl.Float64)
        row |= {f"{name}_mean": series.mean(), f"{name}_std": series.std()}
    for name in SHOWN:
        found = interval(gained.get(name, []))
        row |= {f"gained_{name}_{part}": getattr(found, part, None) for part in ("mean", "low", "high")}
    return row
