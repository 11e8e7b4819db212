"""The files of a run folder. This module alone reads and writes run.json, rounds.jsonl and query.csv.

    run.json          the configuration, what the run took where it says `auto`, the environment, the data's
                      fingerprint, the splits, the rule for ties and what held before the run grew
    rounds.jsonl      a line for each finished round
    rounds/007/       query.csv (id, score, rank), maps/<id>.png, examples.npz, weights (of the last round)
                      and, if people or a model on trial answer: question.json, suggested.npz, answers.json,
                      drawn/, predicted/; with
                      --stop-fraction auto: stop_set.csv (id, class), what the model predicts
    start/            their answers to the start set
    teacher.safetensors    the weights of the teacher (regime tait)
    model/            the model of the last finished round, with its card (`sal_fast.trained.folder`)
    frozen/           the features of the networks, with --train head
    people/           what the page on which people label keeps: its secret, drafts, its log, first answers
    baseline/         what other models say of the test images, and gained.json (--baseline)
    summary.json      written when the run is finished

The same command continues a run from these files. A round is finished when its line is there. Files are
written aside, flushed to disk and renamed, so a killed run leaves whole files or none.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sal_fast._util.files import flush, read_json, write_bytes, write_json
from sal_fast._util.locks import hold
from sal_fast._util.words import MEAN, STD
from sal_fast.errors import InputError
from sal_fast.experiment.budget import AUTO
from sal_fast.experiment.config import OPTIONS, Config
from sal_fast.people.agreement import Agreement, Pair
from sal_fast.people.answers import Person, Spent, Step
from sal_fast.people.saved import Saved

log = logging.getLogger(__name__)

FORMAT = 1
PEOPLE = "people"  # the folder of the page on which people label
# The table that the page makes of images without any class; such a run has it as its data.
FIRST_TABLE = Path(PEOPLE) / "first" / "data.csv"
PARTS = {"config": dict, "environment": dict, "data": dict, "inputs": dict, "splits": dict, "start": list}
DATA = ("name", "fingerprint", "classes", "counts")  # entries that run.json's `data` has to have
GROWN = "grown"  # run.json's key of what held before the run grew (`sal_fast.experiment.growing`)
TIES = "ties"  # run.json's key of the rule for ties of a query
OLD_TIES, NEW_TIES = "position", "key"  # a run.json without this key stands for the first
# Fields of `People`: counts, and those that are None if nobody measured them.
COUNTS = ("labelled", "maps", "skipped", "annotators")
SECONDS = ("seconds", "label_seconds", "map_seconds", "idle_seconds")
# The figures of a round that the summary and the report repeat; rounds of an older sal-fast lack some.
FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "dice", "dice_floor", "iou", "pointing")
OPTIONAL = (
    "balanced_accuracy",
    "macro_f1",
    "iou",
    "pointing",
    "val_accuracy",
    "cc",
    "kl",
    "trial_dice",
    "stop_kappa",
    "expected_gain",
)  # fields of `Round` that are None where a line does not have them
OWN_NOTES = ("threads", "device", "decoder", "torch", "torchvision", "numpy")  # a change is noted


@dataclass(frozen=True)
class People:
    """Counts of what people answered, and their time, over the whole labelled set of a round.

    The seconds are None if nobody measured them. `label_seconds` were spent on images without a map, and
    `map_seconds` on images with one. `idle_seconds` are no part of them.

    by_kind, by_person, steps: see `people.answers.tally`. saved: by classes alone after the hand-over.
    corrected: what was saved by correcting a model's maps. agreement: of several people on the same images.
    They are empty or None if the answers do not tell them, and in rounds of an older sal-fast.
    """

    labelled: int
    maps: int
    skipped: int
    annotators: int
    seconds: float | None = None
    label_seconds: float | None = None
    map_seconds: float | None = None
    idle_seconds: float | None = None
    by_kind: dict[str, Spent] = field(default_factory=dict)
    by_person: list[Person] = field(default_factory=list)
    steps: dict[str, Step] = field(default_factory=dict)
    saved: Saved | None = None
    corrected: Saved | None = None
    agreement: Agreement | None = None

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> People:
        """Make the entry from the one of a line. Raises KeyError, TypeError or ValueError if it is none."""
        agreement = line.get("agreement")
        if agreement is not None:
            agreement = Agreement(**agreement | {"pairs": [Pair(**pair) for pair in agreement["pairs"]]})
        counts: dict[str, Any] = {name: int(line[name]) for name in COUNTS}
        seconds: dict[str, Any] = {name: _optional(line.get(name)) for name in SECONDS}
        return cls(
            **counts,
            **seconds,
            by_kind={kind: Spent(**one) for kind, one in line.get("by_kind", {}).items()},
            by_person=[Person(**one) for one in line.get("by_person", [])],
            steps={name: Step(**one) for name, one in line.get("steps", {}).items()},
            saved=Saved(**line["saved"]) if line.get("saved") else None,
            corrected=Saved(**line["corrected"]) if line.get("corrected") else None,
            agreement=agreement,
        )


@dataclass(frozen=True)
class PerClass:
    """The figures of each class on the test set, as lists in the order of the classes.

    images, predicted: how many test images have the class, and how many were taken for it. The others are 0
    to 1, and None where there is nothing to take the share or the mean of.
    """

    images: list[int]
    predicted: list[int]
    recall: list[float | None]
    precision: list[float | None]
    f1: list[float | None]
    dice: list[float | None]
    iou: list[float | None]
    pointing: list[float | None]


@dataclass(frozen=True)
class Round:
    """One finished round, which is a line of rounds.jsonl. Its counts are those of the whole labelled set.

    accuracy, balanced_accuracy, macro_f1: on the test set, 0 to 1.
    dice, iou, pointing: means over the test images that have a mask, 0 to 1; None if none has.
    dice_floor: the Dice of a random map.
    per_class: the figures of each class.
    dice_std: the standard deviation of Dice over the test images with a mask.
    trial_dice: the Dice between maps that the model foresaw and those that people drew
        (`--human-budget auto`).
    stop_kappa: the agreement with the round before on the stop set (`--stop-fraction auto`).
    expected_gain: the accuracy that labelling the whole pool is expected to gain.
    stopped: True if labelling ended with this round, because the rule held (`stopping.ends`).
    cc, kl: the agreement with graded maps.
    Runs that are older than `balanced_accuracy`, `macro_f1`, `iou`, `pointing` and `per_class` have None.
    seconds, timings, memory: they depend on the machine.
    """

    round: int
    labelled: int
    human_maps: int
    generated_maps: int
    empty_maps: int
    accuracy: float
    dice: float | None
    dice_floor: float | None
    seconds: float
    dice_images: int | None = None
    dice_std: float | None = None
    val_accuracy: float | None = None
    best_epoch: int | None = None
    balanced_accuracy: float | None = None
    macro_f1: float | None = None
    iou: float | None = None
    pointing: float | None = None
    per_class: PerClass | None = None
    cc: float | None = None
    kl: float | None = None
    trial_dice: float | None = None
    stop_kappa: float | None = None
    expected_gain: float | None = None
    stopped: bool = False
    people: People | None = None
    timings: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Round:
        """Make a round from a line. Raises KeyError, TypeError or ValueError if it is no round's line."""
        known = {name: line[name] for name in cls.__dataclass_fields__ if name in line}
        for name in ("round", "labelled", "human_maps", "generated_maps", "empty_maps"):
            known[name] = int(line[name])
        known["accuracy"], known["seconds"] = float(line["accuracy"]), float(line["seconds"])
        for name in ("dice", "dice_floor", *OPTIONAL):
            known[name] = _optional(line[name] if name in ("dice", "dice_floor") else line.get(name))
        if (classes := line.get("per_class")) is not None:
            known["per_class"] = PerClass(
                **{name: list(classes[name]) for name in PerClass.__dataclass_fields__}
            )
        if (people := line.get("people")) is not None:
            known["people"] = People.of(people)
        return cls(**known)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    def lock(self) -> AbstractContextManager[None]:
        """Lock the folder for this process. The kernel releases the lock however the process ends."""
        return hold(self.path, self.run_json.name, own=("frozen", PEOPLE))

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def summary_json(self) -> Path:
        return self.path / "summary.json"

    @property
    def teacher(self) -> Path:
        return self.path / "teacher.safetensors"

    def asked(self, query_index: int) -> Path:
        """The folder that holds a query and the answers to it. Query 0 is the start set."""
        return self.round(query_index - 1) if query_index else self.path / "start"

    def round(self, round_index: int) -> Path:
        return self.path / "rounds" / f"{round_index:03d}"

    # --- run.json ------------------------------------------------------------------------------------------

    def claim(self, run: Mapping[str, Any]) -> None:
        """Write run.json. If there is one already, compare it with `run`; InputError if they differ."""
        if not self.run_json.exists():
            write_json(self.run_json, {"format": FORMAT, TIES: NEW_TIES, **run})
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
        _check_normalisation(self.path, there["environment"], run["environment"])
        if run["took"] != there["took"]:
            write_json(self.run_json, {**read_json(self.run_json), "took": run["took"]})
        _note_changes(there["environment"], run["environment"])

    def grow(self, run: Mapping[str, Any], before: Mapping[str, Any], *, again: bool) -> None:
        """Write run.json for a run that has grown. It is written last, so that a killed call can be repeated.

        run: what holds from now on. before: what held until now. again: the last round has to run again.
        """
        self.summary_json.unlink(missing_ok=True)
        shutil.rmtree(self.path / "baseline", ignore_errors=True)
        if again:
            self.append(self.rounds()[:-1])
        there = read_json(self.run_json)
        now = {name: run[name] for name in ("config", "took", "data", "splits", "inputs")}
        write_json(self.run_json, {**there, **now, GROWN: [*there.get(GROWN, []), before]})

    def check(self, config: Mapping[str, Any]) -> None:
        """Raise InputError, which names the difference, if run.json has another configuration."""
        if not self.run_json.exists():
            return
        differing = _differences(config, self.run()["config"], self.took())
        if differing:
            raise InputError(
                f"{self.path} holds a run of another configuration ({', '.join(differing)}); "
                f"repeat the command it was made with, or choose another --out"
            )

    def run(self) -> dict[str, Any]:
        """The content of run.json. Options that are younger than the run have their defaults.

        A run in which people answer, and that is older than `--own-masks`, took `ask`.

        Raises InputError if it has another format, is damaged, or names an option that does not exist.
        """
        there = read_json(self.run_json)
        if there.get("format") != FORMAT:
            raise InputError(
                f"{self.run_json}: format {there.get('format')!r}, expected {FORMAT}; update sal-fast, or "
                f"repeat the run elsewhere"
            )
        for name, kind in PARTS.items():
            if not isinstance(there.get(name), kind):
                raise InputError(
                    f"{self.run_json} is damaged: no {name!r} in it; restore it, or repeat the run elsewhere"
                )
        for name in DATA:
            if name not in there["data"]:
                raise InputError(
                    f"{self.run_json} is damaged: no {name!r} in its 'data'; restore it, or repeat the run "
                    f"elsewhere"
                )
        for name in sorted(there["config"].keys() - OPTIONS.keys()):
            raise InputError(f"{self.run_json}: this sal-fast has no option {name!r}; update it to go on")
        defaults = {name: option.default for name, option in OPTIONS.items()}
        asks = there["config"].get("annotator") == "people" and "own_masks" not in there["config"]
        took = {**({"own_masks": "ask"} if asks else {}), **there.get("took", {})}
        config = {**defaults, **there["config"]}
        # a table that lies in the run's own folder moves with it
        table, own = Path(str(config["data"])), self.path.absolute() / FIRST_TABLE
        if (
            table.parts[-len(FIRST_TABLE.parts) :] == FIRST_TABLE.parts
            and not table.exists()
            and own.exists()
        ):
            config["data"] = str(own)
        return {TIES: OLD_TIES, **there, "took": took, "config": config}

    def took(self) -> dict[str, Any]:
        """The values that a run which has started has for options that it settles (`Option.settled`)."""
        if not self.run_json.exists():
            return {}
        there = self.run()
        given = {name: one for name, one in there["config"].items() if OPTIONS[name].settled and one != AUTO}
        return given | there["took"]

    def config(self) -> Config:
        """The configuration of the run, with what it took for `auto`; `out` is where this folder is now."""
        options = self.run()["config"] | self.took() | {"out": str(self.path)}
        try:
            return Config.of(options)
        except InputError as error:
            raise InputError(f"{self.run_json}: {error}") from None

    # --- rounds.jsonl --------------------------------------------------------------------------------------

    def finished(self) -> bool:
        """True if there is a summary.json. Raises InputError if it disagrees with rounds.jsonl."""
        if not self.summary_json.exists():
            return False
        told, there = read_json(self.summary_json).get("rounds"), len(self.rounds())
        if told != there:
            raise InputError(
                f"{self.path}: summary.json tells of {told} rounds, rounds.jsonl of {there}; restore them, "
                f"or remove summary.json and repeat the command"
            )
        return True

    def rounds(self, *, mend: bool = True) -> list[dict[str, Any]]:
        """The lines of the finished rounds. A killed run may leave half a last line, which does not count.

        With `mend` that half line is cut off, with a warning. Raises InputError for damage anywhere else.
        """
        path = self.path / "rounds.jsonl"
        if not path.exists():
            return []
        lines = path.read_bytes().splitlines(keepends=True)
        rows: list[dict[str, Any]] = []
        for index, line in enumerate(lines):
            row = _line(line, index)
            if row is not None:
                rows.append(row)
                continue
            if index < len(lines) - 1 or (not mend and line.endswith(b"\n")):
                raise InputError(
                    f"{path}, line {index + 1} is damaged; restore the file, or repeat the run elsewhere"
                )
            if mend:
                write_bytes(path, b"".join(lines[:index]))
                log.warning(
                    "%s: line %d was half-written and has been removed; round %d runs again",
                    path, index + 1, index,
                )  # fmt: skip
        return rows

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Write all rows to rounds.jsonl. The last of them is the round that has just finished."""
        write_bytes(self.path / "rounds.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())

    # --- rounds/NNN ----------------------------------------------------------------------------------------

    def query(self, round_index: int) -> list[str]:
        """The ids of the query that was made after a round, in order of rank.

        Raises InputError if its file cannot be read.
        """
        path = self.round(round_index) / "query.csv"
        try:
            with open(path, newline="", encoding="utf-8") as file:
                return [row["id"] for row in csv.DictReader(file)]
        except (OSError, KeyError, csv.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}: the query of a finished round cannot be read ({error}); restore it"
            ) from None

    @contextmanager
    def finishing(self, round_index: int) -> Iterator[Path]:
        """Yield a folder to fill, and rename it to rounds/NNN when the block ends without an error.

        If there is a rounds/NNN already, whose line was lost, the answers of people in it are kept.
        """
        aside = self.round(round_index).with_suffix(".part")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            yield aside
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        there = self.round(round_index)
        if (there / "answers.json").exists():
            shutil.copy(there / "answers.json", aside)
        if (there / "drawn").exists():
            shutil.copytree(there / "drawn", aside / "drawn")
        for path in (aside, *aside.rglob("*")):
            flush(path)
        shutil.rmtree(there, ignore_errors=True)
        aside.rename(there)
        flush(there.parent)

    def prune(self, round_index: int) -> None:
        """Delete the weights and examples of all rounds but one."""
        for pattern in ("*.safetensors", "examples.npz"):
            for path in (self.path / "rounds").glob(f"[0-9]*/{pattern}"):
                if path.parent != self.round(round_index):
                    path.unlink()


def write_query(folder: Path, ids: list[str], scores: list[float]) -> None:
    (folder / "query.csv").write_bytes(query_csv(ids, scores))


def query_csv(ids: list[str], scores: list[float]) -> bytes:
    """The content of query.csv: id, score and rank in one line for each image, the first rank first."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(("id", "score", "rank"))
    writer.writerows(
        (name, repr(score), rank) for rank, (name, score) in enumerate(zip(ids, scores, strict=True))
    )
    return file.getvalue().encode()


def _check_normalisation(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a run whose networks saw images that were normalised in another way.

    Before a run recorded it, all images were normalised as ImageNet's.
    """
    usual = [list(MEAN), list(STD)]
    for arch, numbers in now["normalisation"].items():
        if before.get("normalisation", {}).get(arch, usual) != numbers:
            raise InputError(
                f"{path} was made with images normalised in another way: {arch} takes mean {numbers[0]} and "
                f"deviation {numbers[1]} now, as its pretrained weights do; choose another --out"
            )


def _differences(asked: Mapping[str, Any], kept: Mapping[str, Any], took: Mapping[str, Any]) -> list[str]:
    """The options that a run of these settings has otherwise. `auto` stands for whatever the run took."""
    return [
        f"{name} {took.get(name, kept.get(name))!r} there, {value!r} asked"
        for name, value in asked.items()
        if not OPTIONS[name].can_change_on_resume and kept.get(name) != value
        if not (OPTIONS[name].settled and value in (AUTO, took.get(name)))
    ]


def _note_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Warn of libraries and machines that differ from those that a run began with."""
    for name in OWN_NOTES:
        if before.get(name) != now.get(name):
            log.warning(
                "%s was %s when this run began and is %s now; rounds from here on may differ in the last "
                "digits", name, before.get(name), now.get(name),
            )  # fmt: skip


def _line(line: bytes, index: int) -> dict[str, Any] | None:
    """A line of rounds.jsonl as an object; None if it is not whole."""
    try:
        row = json.loads(line)
        return row if line.endswith(b"\n") and row["round"] == index else None
    except (ValueError, KeyError, TypeError):
        return None


def _optional(value: Any) -> float | None:
    return None if value is None or math.isnan(float(value)) else float(value)
