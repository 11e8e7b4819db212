"""Look through a data set before a run does."""

from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

import torch

from sal_fast import seeds
from sal_fast._util import progress
from sal_fast.data import catalog, decode, duplicates, groups, meaning, reading, splits, store
from sal_fast.data.files import Unreadable
from sal_fast.data.load import load_originals
from sal_fast.data.meaning import Rule, Seen
from sal_fast.data.readers import Options
from sal_fast.data.reading import StoreOptions, sources
from sal_fast.data.table import UNLABELLED, Table
from sal_fast.errors import InputError

SIDE = 64  # pixels a side to which images and maps are brought; what masks mean is seen at their own size
KINDS = (
    "no mask", "empty mask", "full mask", "graded mask", "mask of few values", "mis-sized mask",
    "unreadable", "binary mask",
)  # fmt: skip


class Findings(NamedTuple):
    """The findings in a data set.

    rows: the row numbers by kind of finding (`KINDS`).
    seen: what was seen in the mask files of each row that has some.
    reasons: why a row's files cannot be used, by row number.
    problems: everything that a run would refuse. Files with one reason are one problem, of several lines.
    notes: what a run would pass over in silence, and what differs from the paper's Table 1.
    """

    table: Table
    rows: dict[str, list[int]]
    seen: dict[int, list[Seen]]
    reasons: dict[int, str]
    problems: list[str]
    notes: list[str]


def look(
    data: str,
    root: str | None = None,
    rule: Rule | None = None,
    options: Options | None = None,
    *,
    allow_leaks: bool = False,
) -> Findings:
    """Decode every image and mask of `data` (see `load_table`) as a run does, and say what was found.

    With `allow_leaks` a picture in several splits or classes, or a group in several splits, is a note and no
    problem.
    """
    table = load_originals(data, root, rule, options)
    problems = []
    try:
        splits.assign(table, seeds.stream(0, "split"))
    except InputError as error:
        problems.append(str(error))
    allowed = catalog.allows(table, allow_leaks)
    cut = groups.problem(table)
    found = _decoded(table)
    rows: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for row in range(len(table)):
        rows[_kind(table, row, found)].append(row)
    if len(rows["no mask"]) == len(table) and UNLABELLED not in table.labels:  # else people draw them
        problems.append(f"{table.name}: no masks at all; only the regime b1 can run, or --annotator people")
    reasons = {row: str(error) for row, error in found.broken.items()}
    problems += _grouped([found.broken[row] for row in (*rows["mis-sized mask"], *rows["unreadable"])])
    named = [
        (str(path), one)
        for row, several in found.seen.items()
        for path, one in zip(sources(table, row)[1:], several, strict=True)
    ]
    verdict = meaning.judge(named, table.rule)
    notes = catalog.compare(data, table) if data in catalog.ENTRIES else list(table.notes)
    refused, twice = duplicates.judged(table, duplicates.find(found.traits), allowed=allowed)
    notes = [*verdict.notes, *meaning.of_deep_images(found.deep, table.rule), *notes]
    notes += duplicates.described(table, twice)
    problems += [*(verdict.problems or meaning.useless(named)), *duplicates.described(table, refused)]
    if cut is not None:
        (notes if allowed else problems).append(cut)
    return Findings(table, rows, found.seen, reasons, problems, notes)


def _grouped(broken: Sequence[Unreadable]) -> list[str]:
    """A line for each file; if more than three have one reason, the reason, with their paths below it."""
    alike: dict[str, list[Unreadable]] = {}
    for error in broken:
        alike.setdefault(error.reason, []).append(error)
    lines = []
    for reason, errors in alike.items():
        if len(errors) > 3:
            paths = (str(error.path) for error in errors)
            lines.append("\n  ".join([f"{len(errors)} files: {reason}", *paths]))
        else:
            lines += map(str, errors)
    return lines


class _Decoded(NamedTuple):
    """The result of decoding all files of a table.

    broken, seen: by row number. deep: the brightest channel of each image of more than 8 bits.
    """

    broken: dict[int, Unreadable]
    seen: dict[int, list[Seen]]
    deep: list[int]
    traits: duplicates.Traits


def _decoded(table: Table) -> _Decoded:
    broken: dict[int, Unreadable] = {}
    seen: dict[int, list[Seen]] = {}
    deep: list[int] = []
    digests: list[bytes] = []
    looks = []
    with (
        closing(decode.choose("torch", torch.device("cpu"))) as decoder,
        progress.bar(f"checking {table.name}", len(table), log=len(table) > 2000) as advance,
    ):
        parts = reading.parts(table, range(len(table)), StoreOptions(SIDE, SIDE, decoder))
        for part in reading.ahead(parts, depth=1):
            broken |= {part.rows[i]: error for i, error in part.broken.items()}
            whole = [i for i in range(len(part.rows)) if i not in part.broken]
            seen |= {part.rows[i]: part.seen[i] for i in whole if part.seen[i]}
            deep += part.deep.values()
            digests += part.digests
            looks += [] if part.looks is None else [part.looks]
            advance(len(part.rows))
    return _Decoded(broken, seen, deep, store.traits_of(digests, torch.cat(looks)))


def _kind(table: Table, row: int, found: _Decoded) -> str:
    """The kind of a sample's map, which is graded if several annotators drew it."""
    if row in found.broken:
        return "mis-sized mask" if isinstance(found.broken[row], meaning.MisSized) else "unreadable"
    seen = found.seen.get(row, [])
    if not seen:
        return "no mask"
    if any(one.looks_labelled for one in seen) and not table.rule.grades:
        return "mask of few values"
    kinds = {one.kind for one in seen}
    averaged = len(seen) > 1 and not isinstance(table.masks[row], tuple)
    if "graded" in kinds or (averaged and "binary" in kinds):
        return "graded mask"
    return "binary mask" if "binary" in kinds else f"{seen[0].kind} mask"
