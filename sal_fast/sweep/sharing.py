"""Rounds that several runs have in common, bit by bit: one of them trains these rounds, the others copy them.

Regimes differ in who draws the maps. As long as people draw them, b2, sal, sal-single, no-ai-saliency and
tait are one run: they have the same labelled set, the same maps and the same weights. Round r ends with query
r + 1 and its maps. So two runs share round r if the maps of queries 0 to r + 1 come from the same source, and
no model drew any of them.
"""

import shutil
from collections.abc import Hashable
from pathlib import Path

from sal_fast._util.files import write_json
from sal_fast.experiment.answers.turns import Turns
from sal_fast.experiment.budget import AUTO, Plan
from sal_fast.experiment.config import OPTIONS, Config
from sal_fast.experiment.provenance import OWN, own_digests
from sal_fast.experiment.record import GROWN, RunFolder
from sal_fast.experiment.regimes import GENERATED

# The options that must be equal in runs with common rounds. The others only decide who draws maps, or are
# never set by a grid.
SHARED = tuple(
    name for name, one in OPTIONS.items() if "maps" not in one.affects and one.not_in_a_grid is None
)


def common_key(config: Config, plan: Plan) -> Hashable:
    """Return a key that is equal for runs that differ, at most, in who draws their maps."""
    masks = config.segmenter_masks if config.its_regime.uses_a_segmenter else None
    return (config.its_alpha, masks, plan.labelled, *(getattr(config, name) for name in SHARED))


def shared_rounds(one: tuple[Config, Plan], other: tuple[Config, Plan]) -> int:
    """Return how many rounds, from the first, are the same in both runs."""
    if common_key(*one) != common_key(*other):
        return 0
    sources = (Turns.of(*run).certain_sources() for run in (one, other))
    same = 0  # queries, from the start set on
    for a, b in zip(*sources, strict=True):
        if a != b or a in GENERATED:
            break
        same += 1
    return same if same == one[1].rounds else max(0, same - 1)  # the last round asks for nothing


def copy_rounds(source: Config, target: Config, count: int) -> bool:
    """Copy the first `count` rounds of the source's run folder into the target's.

    Returns False if there is nothing to copy: the source has fewer rounds or has grown, or no longer the
    weights that a run with --warm-start needs. A target that has begun is left as it is.

    The source may go on meanwhile. Its finished rounds do not change, but only its last round keeps weights
    and examples; they are copied if they are still there. If this process is killed at any moment, the target
    has the lines of all these rounds, or of none.

    Raises InputError if a folder is in use, or holds a run of another configuration.
    """
    there, here = RunFolder(source.run_folder), RunFolder(target.run_folder)
    if not there.run_json.exists():
        return False
    there.check(source.options())
    lines = there.rounds(mend=False)[:count]
    if len(lines) < count or GROWN in there.run() or not _has_weights(there, source, count):
        return False
    with here.lock():
        here.check(target.options())
        if here.run_json.exists() and here.rounds():
            return True
        options, took = target.options(), there.took()
        took = {name: value for name, value in took.items() if options[name] == AUTO}
        run = {**there.run(), "config": options, "took": took}
        kept = {name: digest for name, digest in run["inputs"].items() if name not in OWN}
        run["inputs"] = kept | own_digests(target)
        write_json(here.run_json, run)
        for round_index in range(count):
            with here.finishing(round_index) as aside:
                shutil.copytree(there.round(round_index), aside, copy_function=_copy, dirs_exist_ok=True)
        if not _has_weights(here, target, count):
            return False  # the source has gone on, and removed them
        write_json(here.run_json, {**run, "copied": {"from": there.path.name, "rounds": count}})
        here.append(lines)
    return True


def _has_weights(folder: RunFolder, config: Config, count: int) -> bool:
    """True if the folder has the weights that round `count` starts from, or if that round needs none."""
    return not config.warm_start or (folder.round(count - 1) / "accuracy.safetensors").exists()


def _copy(source: str, target: str) -> None:
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:  # weights or examples of a round that is no longer the last
        if Path(source).suffix not in (".safetensors", ".npz"):
            raise
