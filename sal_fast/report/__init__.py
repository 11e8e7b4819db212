"""Tables and figures from run folders, gathered on one page that needs no network."""

from collections.abc import Sequence
from pathlib import Path

from sal_fast.errors import InputError
from sal_fast.report import figures, heatmaps, page, tables
from sal_fast.report.runs import load

__all__ = ["write"]


def write(runs: Sequence[Path], out: Path) -> Path:
    """Report on `runs` (run folders, or folders of them) in `out`; the path of its index.html.

    The same runs give the same bytes. Input that cannot be reported on raises InputError.
    """
    loaded, notes = load(runs)
    table = tables.runs_table(loaded)
    frames = {
        "summary.csv": tables.summary_table(table),
        "runs.csv": table,
        "rounds.csv": tables.rounds_table(loaded),
    }
    with figures.drawing():
        curves = figures.learning_curves(loaded)
        # One run is one point, and the table says it better.
        scatter = figures.scatter(loaded) if len(loaded) > 1 else []
        sheets = heatmaps.sheets(loaded)
        alone = [figures.map_counts(loaded[0])] if len(loaded) == 1 else []
        if alone and any(r.timings for r in loaded[0].rounds):
            alone.append(figures.phase_seconds(loaded[0]))

    files = {name: frame.write_csv().encode() for name, frame in frames.items()}
    html = page.render(
        runs=loaded,
        notes=notes,
        summary=frames["summary.csv"].to_dicts(),
        csv=dict(files),
        curves=curves,
        scatter=scatter,
        sheets=sheets,
        alone=alone,
    )
    pictures = [
        *(picture for row in curves.values() for picture in row),
        *scatter,
        *(sheet.picture for sheet in sheets),
        *alone,
    ]
    files |= {f"{picture.name}.png": picture.png for picture in pictures}
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
