"""Rounds that several runs have in common, bit by bit: trained by one of them, copied by the others.

Regimes differ in who draws the maps. As long as people draw them, b2, sal, sal-single, no-ai-saliency and
tait are one run: the same labelled set, the same maps, the same weights. Round r ends with query r + 1 and
its maps: it is shared where the maps of queries 0 to r + 1 come from the same place, and no model drew any.
"""

from __future__ import annotations

import shutil
from collections.abc import Hashable
from pathlib import Path

from sal_fast._util.files import write_json
from sal_fast.experiment.answers.turns import Turns
from sal_fast.experiment.budget import Plan
from sal_fast.experiment.config import OPTIONS, Config
from sal_fast.experiment.provenance import OWN, own_digests
from sal_fast.experiment.record import RunFolder
from sal_fast.experiment.regimes import GENERATED, Source

# the options that runs with common rounds share: the others decide who draws maps, or nothing at all
_SHARED = tuple(name for name, one in OPTIONS.items() if one.affects and "maps" not in one.affects)


def sources(config: Config, plan: Plan) -> list[Source]:
    """The map source of each query, as far as it is known before the run; 0 is the start set."""
    return Turns.of(config, plan).certain_sources()


def common_key(config: Config, plan: Plan) -> Hashable:
    """Equal for runs that have everything in common but who draws their maps."""
    masks = config.segmenter_masks if config.its_regime.uses_a_segmenter else None
    return (config.its_alpha, masks, plan.labelled, *(getattr(config, name) for name in _SHARED))


def shared_rounds(one: tuple[Config, Plan], other: tuple[Config, Plan]) -> int:
    """How many rounds, from the first, are the same in both runs."""
    if common_key(*one) != common_key(*other):
        return 0
    return same_beginning(one, other)


def same_beginning(one: tuple[Config, Plan], other: tuple[Config, Plan]) -> int:
    """`shared_rounds` of two runs with one `common_key`."""
    same = 0  # queries, from the start set on
    for a, b in zip(sources(*one), sources(*other), strict=True):
        if a != b or a in GENERATED:
            break
        same += 1
    return same if same == one[1].rounds else max(0, same - 1)  # the last round asks for nothing


def copy_rounds(source: Config, target: Config, count: int) -> bool:
    """Give `target`'s run folder the first `count` rounds of `source`'s; False where they are not to be had.

    The other run may go on meanwhile: finished rounds stay as they are, but for weights and examples, which
    only the last round keeps. They come along where they are still there; a run with --warm-start needs them.
    Killed at any moment, it leaves a run folder with the lines of all these rounds or of none.
    Raises InputError where a folder is in use, or holds another configuration's run.
    """
    there, here = RunFolder(source.run_folder), RunFolder(target.run_folder)
    if not there.run_json.exists():
        return False
    there.check(source.options())
    lines = there.rounds()[:count]
    if len(lines) < count:
        return False
    last = there.round(count - 1)
    if source.warm_start and not (last / "accuracy.safetensors").exists():
        return False
    with here.lock():
        here.check(target.options())
        if here.run_json.exists() and here.rounds():
            return True  # it has begun, and goes on by itself
        run = {**there.run(), "config": target.options()}
        kept = {name: digest for name, digest in run["inputs"].items() if name not in OWN}
        run["inputs"] = kept | own_digests(target)
        write_json(here.run_json, run)
        for number in range(count):
            with here.finishing(number) as aside:
                _copy(there.round(number), aside)
        if source.warm_start and not (here.round(count - 1) / "accuracy.safetensors").exists():
            return False  # gone meanwhile
        write_json(here.run_json, {**run, "copied": {"from": there.path.name, "rounds": count}})
        here.append(lines)
    return True


def _copy(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        to = target / path.relative_to(source)
        if path.is_dir():
            to.mkdir(parents=True, exist_ok=True)
            continue
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, to)
        except FileNotFoundError:  # weights or examples of a round that is no longer the last
            if path.suffix not in (".safetensors", ".npz"):
                raise
