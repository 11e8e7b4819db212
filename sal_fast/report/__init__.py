"""Tables and figures from run folders, gathered on one page that needs no network."""

import logging
from collections.abc import Sequence
from pathlib import Path

from sal_fast._util.files import write_bytes
from sal_fast.errors import InputError
from sal_fast.report import (
    claims,
    comparisons,
    controls,
    curves,
    differences,
    figures,
    gained,
    heatmaps,
    page,
    people,
    tables,
)
from sal_fast.report.looks import Looks
from sal_fast.report.runs import compared_options, load, without_alpha_sweep

__all__ = ["write"]

log = logging.getLogger(__name__)


def write(runs: Sequence[Path], out: Path) -> Path:
    """Write a report on runs, and return the path of its index.html. The same runs give the same bytes.

    Args:
        runs: run folders, or folders of run folders. Whatever holds no finished round is left out; the page
            says so, and a warning is logged.
        out: the folder for the page, its figures (PNG) and its tables (CSV).

    Raises InputError for a path that does not exist, for a damaged run, if no run remains, and if `out`
    cannot be written.
    """
    loaded, notes = load(runs)
    for note in notes:
        log.warning("%s", note)
    main = without_alpha_sweep(loaded)
    table, classes = tables.runs_table(loaded), tables.classes_table(loaded)
    found, missing = claims.claims(loaded)
    frames = {
        "summary": tables.summary_table(table),
        "claims": tables.frame(claims.table(found)),
        "controls": tables.frame(controls.table(main)),
        "differences": tables.frame(differences.table(main)),
        "gains": tables.gains_table(main),
        "people": tables.people_table(loaded),
        "people_kinds": tables.kinds_table(loaded),
        "people_persons": tables.persons_table(loaded),
        "people_pairs": tables.pairs_table(loaded),
        "runs": table,
        "rounds": tables.rounds_table(loaded),
        "classes": classes,
    }
    with figures.drawing():
        looks = Looks(main)
        maps, unseen = heatmaps.generated(loaded)
        rows = {
            "gained": gained.figures(loaded),
            "curves": curves.learning_curves(main, looks),
            "scatter": comparisons.scatter(main, looks),
            "budgets": comparisons.budgets(main, looks),
            "people": people.figures(loaded),
            "trials": comparisons.trials(main, looks),
            "endings": comparisons.endings(main, looks),
            "probes": comparisons.probes(main, looks),
            "alphas": comparisons.alphas(loaded, looks),
            "heatmaps": heatmaps.sheets(main),
            "generated": maps,
            "single": curves.single(loaded[0]) if len(loaded) == 1 else [],
        }
    shown = {"classes": tables.mean_classes(classes)}
    files = {f"{name.replace('_', '-')}.csv": frame for name, frame in frames.items()}
    csv = {name: frame.write_csv().encode() for name, frame in files.items() if len(frame)}
    html = page.render(
        runs=loaded,
        notes=[*notes, *unseen],
        missing=missing,
        openings={run.name: opening for run in loaded if (opening := gained.opening(run))},
        people={run.name: said for run in loaded if (said := people.sentences(run))},
        kinds=people.KINDS,
        margin=claims.MARGIN,
        compared=compared_options(),
        tables={name: frame.to_dicts() for name, frame in {**frames, **shown}.items()},
        csv=csv,
        rows=rows,
    )
    pictures = [picture for section in rows.values() for row in section for picture in row.pictures]
    _write(Path(out), csv | {f"{p.name}.png": p.png for p in pictures} | {"index.html": html.encode()})
    return Path(out) / "index.html"


def _write(out: Path, files: dict[str, bytes]) -> None:
    try:
        for name, content in files.items():
            write_bytes(out / name, content)
    except OSError as error:
        raise InputError(
            f"{out}: the report cannot be written there ({error}); choose another --out"
        ) from error
