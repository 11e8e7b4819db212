"""Folders made at random, as people have them: each is read as it is meant, or refused, or a note tells."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import random_folders
import torch

from sal_fast.data import StoreOptions, check, decode, store
from sal_fast.data.meaning import Rule
from sal_fast.data.readers import Options, Reading, plain
from sal_fast.errors import InputError

QUICK, ALL = 40, 2000
FRAME = 4 * random_folders.CELLS
NO_MASK = re.compile("no masks at all|no mask says anything")  # a run may go on, by classes and splits alone
WHOLE = re.compile(r"^(masks: \d|only a training split)")  # notes on the whole set, which name no file


class Outcome(NamedTuple):
    """What became of a folder: `right`, `refused` or `noted`; what is wrong with that, if anything."""

    kind: str
    wrong: str
    story: str


def read(folder: random_folders.Folder) -> Outcome:
    """Read a folder through the public door, and compare it with what it shows."""
    story = f"{folder.story}, {folder.columns}"
    rule, options = Rule.of(**folder.rule), Options.of("auto", folder.columns)
    try:
        found = check.look(str(folder.data), rule=rule, options=options)
    except InputError as error:
        return Outcome("refused", unnamed(folder, [str(error)]), story)
    refused = [problem for problem in found.problems if not NO_MASK.search(problem)]
    if refused:
        return Outcome("refused", unnamed(folder, refused), story)
    table = found.table
    pillow = decode.choose("pillow", torch.device("cpu"))
    maps = store.build(table, StoreOptions(FRAME, 0, pillow)).masks.unpack(torch.arange(len(table)))
    rows = {path: row for row, path in enumerate(table.images)}
    strangers = sorted(rows.keys() - folder.truth.keys())
    differences = [(path, "image", "", "should not be there") for path in strangers]
    for path, truth in folder.truth.items():
        row = rows.get(path)
        if row is None:
            differences.append((path, "image", "", "is missing"))
            continue
        for what, is_, should in (
            ("label", table.class_name(row), truth.label),
            ("split", table.split[row], truth.split),
        ):
            if is_ != should:
                differences.append((path, what, "", f"{is_!r}, not {should!r}"))
        if truth.map is None and table.masks[row] is not None:
            differences.append((path, "map", "", "has a mask, should have none"))
        elif truth.map is not None and table.masks[row] is None:
            differences.append((path, "map", "not used: ", "has no mask"))
        elif truth.map is not None:
            expected = np.kron(truth.map, np.ones((4, 4)))
            off = float(np.abs(maps[row].numpy() - expected).mean())
            if off > truth.near:
                differences.append((path, "map", truth.excuse, f"off by {off:.1f}"))
    wrong = [unnamed(folder, [note for note in found.notes if not WHOLE.match(note)])]
    for path, what, excuse, how in differences:
        words = [*folder.excuses.get(what, []), *([excuse] if excuse else [])]
        if not any(re.search(word, note) for word in words for note in found.notes):
            wrong.append(f"{path}: {what} {how}, and no note says {words}; notes: {found.notes}")
    return Outcome("noted" if differences else "right", "\n".join(filter(None, wrong)), story)


def unnamed(folder: random_folders.Folder, lines: list[str]) -> str:
    """The lines that name no file or folder that is there, no column and no value."""
    there = {str(folder.root), *(word for truth in folder.truth.values() for word in truth[:2])}
    for path in folder.root.rglob("*"):
        there |= {str(path), path.name, path.stem, path.relative_to(folder.root).with_suffix("").as_posix()}
    if folder.data.is_file():
        there |= set(re.split(r"[,;\t\r\n]", folder.data.read_text("utf-8-sig")))  # columns and values
    names = {name.strip() for name in there} - {""}

    def named(line: str) -> bool:
        return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", line) for name in names if name in line)

    return "\n".join(f"names nothing: {line}" for line in lines if not named(line))


@cache
def outcome(seed: int) -> Outcome:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAL_FAST_CACHE", f"{folder}/cache")
        return read(random_folders.make(Path(folder) / "set", seed))


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.full if seed >= QUICK else ()) for seed in range(ALL)]
)
def test_random_folders(seed: int) -> None:
    """`random_folders.make(path, seed)` makes the folder again."""
    found = outcome(seed)
    assert not found.wrong, f"{found.kind}: {found.story}\n{found.wrong}"


def test_enough_of_them_are_read() -> None:
    """A reader that refused everything would pass the test above."""
    kinds = Counter(outcome(seed).kind for seed in range(QUICK))
    assert kinds["right"] > QUICK // 5, kinds


@pytest.mark.parametrize("fault", ["masks of other images", "files passed over in silence"])
def test_faults_are_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is no ornament: with a fault in a reader it fails."""
    pair = plain.pair

    def shifted(*args: Any) -> dict[Path, Any]:
        found = pair(*args)
        return dict(zip(found, [*found.values()][1:] + [*found.values()][:1], strict=True))

    if fault == "masks of other images":
        monkeypatch.setattr(plain, "pair", shifted)
    else:
        monkeypatch.setattr(Reading, "leave_out", lambda *args: None)
    assert any(outcome.__wrapped__(seed).wrong for seed in range(QUICK))
