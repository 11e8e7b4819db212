"""Runs that grow: they label a larger share, ask people for more maps, or get new images into their pool.

A run, finished or not, goes on with a larger `--stop-fraction` or `--human-budget`, or with `--add-data`.
The questions that were asked until then stay as they were. The shares are those of the new pool from the next
query on.

run.json says under `config`, `took` and `splits` what holds now. Under `grown` it keeps what held before,
with an entry for each time that the run grew:

    queries           how many queries were asked before, with the start set
    pool              how many training images there were
    query_fraction, stop_fraction, human_budget    the shares of that pool
    joined            the ids of the images that joined the pool then

The last round of a run that had ended asked for nothing. It runs again when the run grows, and ends the same,
but with a query.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sal_fast.data.table import Table
from sal_fast.errors import InputError
from sal_fast.experiment.budget import AUTO, Plan, Stage, fractions
from sal_fast.experiment.config import OPTIONS, Config
from sal_fast.experiment.options import spelling
from sal_fast.experiment.record import GROWN, RunFolder

if TYPE_CHECKING:
    from sal_fast.distributed import Ranks  # it imports torch

GROWING = tuple(name for name, one in OPTIONS.items() if one.grows)

log = logging.getLogger(__name__)


def plan_of(config: Config, run: Mapping[str, Any]) -> Plan:
    """The plan of a run, which may have grown. `run` is the content of its run.json."""
    return config.plan(len(run["splits"]["train"]), _stages(run))


def larger(config: Config, folder: RunFolder) -> list[str]:
    """The names of the options that are larger than those of the run in the folder.

    Raises InputError if an option differs otherwise.
    """
    if not folder.run_json.exists():
        return []
    asked, kept = config.options(), folder.run()["config"]
    folder.check({name: value for name, value in asked.items() if name not in GROWING})
    names = [name for name in GROWING if asked[name] != kept[name]]
    for name in names:
        _check_larger(folder, name, kept[name], asked[name])
    return names


def splits_with(config: Config, folder: RunFolder, table: Table) -> list[str]:
    """The split of each image of a table: the one that it has in the run, and train for a new image.

    Raises InputError if an image is gone, or if a new one cannot join the pool.
    """
    kept = {name: split for split, names in folder.run()["splits"].items() for name in names}
    gone = sorted(kept.keys() - set(table.ids))
    new = [row for row, name in enumerate(table.ids) if name not in kept]
    other = f"{folder.path} was made from other data:"
    if gone:
        raise InputError(f"{other} {gone[0]!r} is gone in {table.name}; choose another --out")
    if new and not config.add_data:
        raise InputError(
            f"{other} {table.ids[new[0]]!r} is new in {table.name}; --add-data lets new images join the "
            f"training pool, or choose another --out"
        )
    classes = folder.run()["data"]["classes"]
    unknown = [name for name in table.classes if name not in classes]
    if unknown:
        raise InputError(
            f"{other} class {unknown[0]!r} is new in {table.name}, and the outputs of a run's network are "
            f"fixed; leave its images out, or choose another --out"
        )
    for row in new:
        if table.split[row] not in ("train", ""):
            raise InputError(
                f"--add-data: new images join the training pool alone, and {table.name} has "
                f"{table.ids[row]!r} in split {table.split[row]!r}; give it the split train, or leave it out"
            )
    return [kept.get(name, "train") for name in table.ids]


@dataclass(frozen=True)
class Growth:
    """The way in which a run grows. It begins when run.json says so (`begin`).

    larger: the options that are larger now. joined: the ids of the images that join the pool. stage: the pool
    and the shares until now. before: the plan until now. rounds: how many are finished. ended: True if no
    query followed the last of them. stopped: True if `--stop-fraction auto` is the reason for that.
    """

    folder: RunFolder
    larger: Sequence[str]
    joined: list[str]
    stage: Stage
    before: Plan
    rounds: int
    ended: bool
    stopped: bool

    def took(self, config: Config, pool: int) -> dict[str, Any]:
        """The values of options that the run settles. `--query-fraction auto` is worked out anew."""
        kept = self.folder.took()
        if self.folder.run()["config"]["query_fraction"] == AUTO:
            stop = 1.0 if isinstance(config.stop_fraction, str) else config.stop_fraction
            reached = min(stop, self.before.labelled[self.stage.queries - 1] / pool)
            _, query = fractions(pool, reached, AUTO, stop)
            kept["query_fraction"] = max(query, 1 / pool)
        return kept

    def check(self, config: Config, plan: Plan) -> None:
        """Refuse larger options that change nothing, and what cannot go on from the last round.

        config, plan: those that are to hold.
        """
        if not self.joined and (plan == self.before or (self.ended and not self._again(plan))):
            words = " and ".join(f"{spelling(name)} {getattr(config, name)}" for name in self.larger)
            raise InputError(
                f"{self.folder.path}: {words} changes nothing, because no query is to come that it could "
                f"change; {plan.labelled[self.stage.queries - 1]} images are asked for already, and a larger "
                f"--stop-fraction or --add-data asks for more"
            )
        if self.joined and config.control_maps == "shuffled":
            raise InputError(
                "--control-maps shuffled gives each training image the map of another one, and new images "
                "would change which; it does not go with --add-data"
            )
        if config.warm_start and self._again(plan) and self.rounds > 1:
            raise InputError(
                f"{self.folder.path} has ended, and with --warm-start its last round cannot run again to ask "
                f"for more: the weights that it began from are gone; choose another --out"
            )

    def begin(self, run: Mapping[str, Any], plan: Plan, fingerprint: str, inputs: Mapping[str, Any]) -> None:
        """Write run.json for the run that has grown.

        Args:
            run: its content from now on.
            plan: the plan from now on.
            fingerprint: of the data without the images that join.
            inputs: the digests of other files, for the pool without these images.

        Raises InputError if anything that the run has used until now is not what it was.
        """
        there = self.folder.run()
        old = {name: there["config"][name] for name in GROWING}
        self.folder.claim(
            {
                **run,
                "config": run["config"] | old,
                "took": there["took"],
                "data": run["data"] | {"fingerprint": fingerprint},
                "inputs": inputs,
            }
        )
        again = self._again(plan)
        self.folder.grow(run, {**asdict(self.stage), "joined": self.joined}, again=again)
        images = f"{len(self.joined)} images join its pool of {self.stage.pool}, and " * bool(self.joined)
        log.info(
            "%s grows: %s%d of %d training images are to be labelled; %d are labelled or asked for%s",
            self.folder.path, images, plan.labelled[-1], len(run["splits"]["train"]),
            plan.labelled[self.stage.queries - 1],
            "; the last round runs again, because it asked for nothing" * again,
        )  # fmt: skip

    def _again(self, plan: Plan) -> bool:
        """True if the last round runs again, because the run had ended and a query follows it now."""
        by_rule = self.stopped and not self.joined and "stop_fraction" not in self.larger
        return self.ended and not by_rule and plan.rounds > self.rounds


def growth(folder: RunFolder, larger: Sequence[str], table: Table) -> Growth | None:
    """The way in which the run in a folder grows; None if it does not grow, or is new.

    larger: the options that are larger now. table: the data as they are now.
    """
    if not folder.run_json.exists():
        return None
    run, config, lines = folder.run(), folder.config(), folder.rounds()
    kept = {name for names in run["splits"].values() for name in names}
    joined = [name for name in table.ids if name not in kept]
    if not larger and not joined:
        return None
    pool, plan = len(run["splits"]["train"]), plan_of(config, run)
    stopped = bool(lines) and bool(lines[-1].get("stopped"))
    ended = stopped or len(lines) == plan.rounds
    stage = Stage(
        queries=len(lines) + (not ended),
        pool=pool,
        query_fraction=config.fractions(pool)[1],
        stop_fraction=config.stop_fraction,
        human_budget=config.human_budget,
    )
    return Growth(folder, larger, joined, stage, plan, len(lines), ended, stopped)


def earlier(folder: RunFolder, growth: Growth | None, ranks: Ranks) -> list[Stage]:
    """The stages before the one that holds now, which the first rank reads and tells the others."""
    found: list[Stage] = []
    if ranks.first and folder.run_json.exists():
        found = [*_stages(folder.run()), *([] if growth is None else [growth.stage])]
    told = ranks.text(json.dumps([asdict(one) for one in found]))
    return [Stage(**one) for one in json.loads(told)]


def _stages(run: Mapping[str, Any]) -> list[Stage]:
    """The stages before the one that holds now, as run.json has them."""
    try:
        return [
            Stage(**{name: one[name] for name in Stage.__dataclass_fields__}) for one in run.get(GROWN, [])
        ]
    except (KeyError, TypeError) as error:
        raise InputError(f"run.json is damaged: {GROWN!r} cannot be read ({error!r}); restore it") from None


def _check_larger(folder: RunFolder, name: str, kept: float | str, asked: float | str) -> None:
    """Refuse a value that the run cannot go on with.

    A number may follow `--stop-fraction auto`, because it only says where labelling ends from now on. Else
    `auto` needs figures of all rounds, which a run with a number has not kept.
    """
    flag = spelling(name)
    if isinstance(asked, str) or (isinstance(kept, str) and name != "stop_fraction"):
        which = "a share, or a larger --stop-fraction," if name == "stop_fraction" else "the same"
        raise InputError(
            f"{folder.path} has {flag} {kept}, and {asked} was asked; a run that has begun cannot change "
            f"between a share and auto here: give {which} or choose another --out"
        )
    if not isinstance(kept, str) and asked < kept:
        raise InputError(
            f"{folder.path} has {flag} {kept:g}, and {asked:g} was asked; a run can only grow: give {kept:g} "
            f"or more, or choose another --out"
        )
