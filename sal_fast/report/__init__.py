"""Tables and figures from run folders, gathered on one page that needs no network."""

from collections.abc import Sequence
from pathlib import Path

from sal_fast.errors import InputError
from sal_fast.report import claims, comparisons, differences, figures, heatmaps, page, tables
from sal_fast.report.runs import load, without_alpha_sweep

__all__ = ["write"]


def write(runs: Sequence[Path], out: Path) -> Path:
    """Report on `runs` (run folders, or folders of them) in `out`; the path of its index.html.

    The same runs give the same bytes. Input that cannot be reported on raises InputError.
    """
    loaded, notes = load(runs)
    main = without_alpha_sweep(loaded)
    table = tables.runs_table(loaded)
    found, missing = claims.claims(loaded)
    frames = {
        "summary.csv": tables.summary_table(table),
        "claims.csv": tables.frame(claims.table(found)),
        "differences.csv": tables.frame(differences.table(main)),
        "gains.csv": tables.gains_table(main),
        "people.csv": tables.people_table(loaded),
        "runs.csv": table,
        "rounds.csv": tables.rounds_table(loaded),
    }
    with figures.drawing():
        rows = {
            "curves": figures.learning_curves(main),
            "scatter": figures.scatter(main),
            "budgets": comparisons.budgets(main),
            "trials": comparisons.trials(main),
            "probes": comparisons.probes(main),
            "alphas": comparisons.alphas(loaded),
            "alone": figures.alone(loaded[0]) if len(loaded) == 1 else [],
        }
        sheets = heatmaps.sheets(main)

    files = {name: frame.write_csv().encode() for name, frame in frames.items() if not frame.is_empty()}
    html = page.render(
        runs=loaded,
        notes=notes,
        missing=missing,
        margin=claims.MARGIN,
        tables={name.removesuffix(".csv"): frame.to_dicts() for name, frame in frames.items()},
        csv=dict(files),
        rows=rows,
        sheets=sheets,
    )
    pictures = [picture for section in rows.values() for row in section for picture in row.pictures]
    files |= {f"{picture.name}.png": picture.png for picture in pictures}
    files |= {f"{sheet.picture.name}.png": sheet.picture.png for sheet in sheets}
    files["index.html"] = html.encode()

    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _write_aside(out / name, content)
    except OSError as error:
        raise InputError(
            f"{out}: the report cannot be written there ({error}); choose another --out"
        ) from error
    return out / "index.html"


def _write_aside(file: Path, content: bytes) -> None:
    aside = file.with_name(f".{file.name}.part")
    aside.write_bytes(content)
    aside.replace(file)
