"""The run folder: what is kept of a run, so that the same command continues it.

    run.json          resolved configuration, environment, data fingerprint, splits
    rounds.jsonl      a line per finished round
    rounds/007/       query.csv (id, score, rank), maps/<id>.png, examples.npz, weights (the last round's)
                      and, where people or a model on trial answer: answers.json, drawn/, predicted/
    start/            their answers to the start set
    teacher.safetensors    regime tait
    summary.json      when the run is finished

A round is finished when its line is there. Files are written aside, flushed to disk and renamed, so a killed
run leaves whole files or none.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from sal_fast._util.files import flush, read_json, write_bytes, write_json
from sal_fast._util.locks import hold
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config

Value = TypeVar("Value")
FORMAT = 1
PARTS = {"config": dict, "environment": dict, "data": dict, "inputs": dict, "splits": dict, "start": list}
DEFAULTS = {option.name: option.default for option in fields(Config)}
FREE = frozenset({"out", "config", "decoder", "store"})  # may change between calls


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lock(self) -> AbstractContextManager[None]:
        """Hold the folder; the kernel lets go of it when the process ends, however it ends."""
        return hold(self.path, self.run_json.name)

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def summary_json(self) -> Path:
        return self.path / "summary.json"

    @property
    def teacher(self) -> Path:
        return self.path / "teacher.safetensors"

    def asked(self, number: int) -> Path:
        """Where query `number` is, and the answers to it."""
        return self.round(number - 1) if number else self.path / "start"

    def round(self, number: int) -> Path:
        return self.path / "rounds" / f"{number:03d}"

    def claim(self, run: Mapping[str, Any]) -> None:
        """Write run.json, or compare with the one there and refuse what differs."""
        if not self.run_json.exists():
            write_json(self.run_json, {"format": FORMAT, **run})
            return
        self.check(run["config"])
        there = self.run()
        if there["data"]["fingerprint"] != run["data"]["fingerprint"]:
            raise InputError(
                f"{self.path} was made from other data: {there['data']['name']} has changed since "
                f"(images, masks, labels or splits); choose another --out"
            )
        before, now = there["inputs"], run["inputs"]
        changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if changed:
            raise InputError(
                f"{self.path} was made with other files: --{changed[0].replace('_', '-')} has changed since; "
                f"choose another --out"
            )
        for name in ("threads", "device", "decoder", "torch", "torchvision", "numpy"):
            before, now = there["environment"].get(name), run["environment"].get(name)
            if before != now:
                print(
                    f"sal-fast: note: {name} was {before} when this run began and is {now} now; "
                    f"rounds from here on may differ in the last digits",
                    file=sys.stderr,
                )

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse a configuration other than the one in run.json, naming what differs."""
        if not self.run_json.exists():
            return
        kept = self.run()["config"]
        differing = [name for name in config if name not in FREE and kept.get(name) != config[name]]
        if differing:
            listed = ", ".join(
                f"{name} {kept.get(name)!r} there, {config[name]!r} asked" for name in differing
            )
            raise InputError(
                f"{self.path} holds a run of another configuration ({listed}); "
                f"repeat the command it was made with, or choose another --out"
            )

    def run(self) -> dict[str, Any]:
        """run.json; InputError where it is another format's, or damaged.

        Options that came after it was written have their defaults, which change nothing.
        """
        there = read_json(self.run_json)
        if there.get("format") != FORMAT:
            raise InputError(
                f"{self.run_json}: format {there.get('format')!r}, expected {FORMAT}; choose another --out"
            )
        for name, kind in PARTS.items():
            if not isinstance(there.get(name), kind):
                raise InputError(
                    f"{self.run_json} is damaged: no {name!r} in it; restore it or choose another --out"
                )
        for name in sorted(there["config"].keys() - DEFAULTS.keys()):
            raise InputError(f"{self.run_json}: this sal-fast has no option {name!r}; update it to go on")
        return {**there, "config": {**DEFAULTS, **there["config"]}}

    def finished(self) -> bool:
        """Whether summary.json tells of as many rounds as there are; InputError where they disagree."""
        if not self.summary_json.exists():
            return False
        told, there = read_json(self.summary_json).get("rounds"), len(self.rounds())
        if told != there:
            raise InputError(
                f"{self.path}: summary.json tells of {told} rounds, rounds.jsonl of {there}; restore them, "
                f"or remove summary.json and repeat the command"
            )
        return True

    def rounds(self) -> list[dict[str, Any]]:
        """The finished rounds' lines; a half-written last line is cut off, and that is said.

        Raises InputError for damage anywhere else.
        """
        path = self.path / "rounds.jsonl"
        if not path.exists():
            return []
        lines = path.read_bytes().splitlines(keepends=True)
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(lines):
            try:
                row = json.loads(line)
                whole = line.endswith(b"\n") and row["round"] == number
            except (ValueError, KeyError, TypeError):
                whole = False
            if not whole:
                if number < len(lines) - 1:
                    raise InputError(
                        f"{path}, line {number + 1} is damaged; restore the file or choose another --out"
                    )
                write_bytes(path, b"".join(lines[:number]))
                print(
                    f"sal-fast: note: {path}: line {number + 1} was half-written and has been removed; "
                    f"round {number} runs again",
                    file=sys.stderr,
                )
                break
            rows.append(row)
        return rows

    def query(self, number: int) -> list[str]:
        """The ids of the query made after a round, in order."""
        path = self.round(number) / "query.csv"
        try:
            with open(path, newline="", encoding="utf-8") as file:
                return [row["id"] for row in csv.DictReader(file)]
        except (OSError, KeyError, csv.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}: the query of a finished round cannot be read ({error}); restore it"
            ) from None

    @contextmanager
    def finishing(self, number: int) -> Iterator[Path]:
        """A folder to fill; renamed to rounds/NNN when the block ends well.

        People's answers in a rounds/NNN whose line was lost come along.
        """
        aside = self.round(number).with_suffix(".part")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            yield aside
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        there = self.round(number)
        if (there / "answers.json").exists():
            shutil.copy(there / "answers.json", aside)
        if (there / "drawn").exists():
            shutil.copytree(there / "drawn", aside / "drawn")
        for path in (aside, *aside.rglob("*")):
            flush(path)
        shutil.rmtree(there, ignore_errors=True)
        aside.rename(there)
        flush(there.parent)

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Make rounds.jsonl these rows: the last is the round that has just finished."""
        write_bytes(self.path / "rounds.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())

    def prune(self, number: int) -> None:
        """Keep weights and examples of round `number` alone."""
        for pattern in ("*.safetensors", "examples.npz"):
            for path in (self.path / "rounds").glob(f"[0-9]*/{pattern}"):
                if path.parent != self.round(number):
                    path.unlink()


def write_query(folder: Path, ids: list[str], scores: list[float]) -> None:
    (folder / "query.csv").write_bytes(query_csv(ids, scores))


def query_csv(ids: list[str], scores: list[float]) -> bytes:
    """id, score, rank: a line an image, the first is asked for first."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(("id", "score", "rank"))
    writer.writerows(
        (name, repr(score), rank) for rank, (name, score) in enumerate(zip(ids, scores, strict=True))
    )
    return file.getvalue().encode()
