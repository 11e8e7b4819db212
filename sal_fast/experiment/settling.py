"""What a run takes where an option says `auto`: it is worked out once, when the run starts.

run.json keeps the options as they were given, and under `took` the values that were taken. A run that goes on
reads them back, so that weights which have come or gone meanwhile change nothing.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

from sal_fast.distributed import Ranks
from sal_fast.experiment import presets
from sal_fast.experiment.budget import AUTO
from sal_fast.experiment.config import OPTIONS, Config
from sal_fast.experiment.networks import teacher_arch
from sal_fast.models import network, weights

FEW = 10_000  # training images, below which a network that begins at random is advised against

log = logging.getLogger(__name__)


def settle(config: Config, pool: int, kept: Mapping[str, Any], ranks: Ranks) -> Config:
    """The configuration with a value for each `auto` that has to be settled (`Option.settled`).

    Args:
        pool: the number of training images.
        kept: what the run took when it started; it is taken again.
        ranks: the first one settles, and tells the others.
    """
    took = _taken(config, pool, kept) if ranks.first else {}
    return config.replace(**json.loads(ranks.text(json.dumps(took))))


def taken(asked: Config, settled: Config) -> dict[str, Any]:
    """The values that `settle` found, by option."""
    values = {name: getattr(settled, name) for name, one in OPTIONS.items() if one.settled}
    return {name: value for name, value in values.items() if value != getattr(asked, name)}


def _taken(config: Config, pool: int, kept: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for name, one in OPTIONS.items() if one.settled and getattr(config, name) == AUTO]
    took = {name: kept[name] for name in names if name in kept}
    if config.weights == AUTO and "weights" not in took:
        took["weights"] = _pretrained("--weights auto", config.arch, config)
    elif config.weights == "none":
        _advise(config, pool)
    if config.its_regime.has_teacher:
        took |= _of_teacher(config.replace(**took), kept, config.weights == AUTO)
    if "own_masks" in names and config.annotator == "people":
        took["own_masks"] = kept.get("own_masks", "use")
    if "baseline" in names and "baseline" not in took:
        plain = config.data == "builtin" and config.out is None
        took["baseline"] = "b1" if plain and config.can_have_a_baseline else "none"
    start, query = config.fractions(pool)
    shares = {"start_fraction": start, "query_fraction": query}
    return {name: value for name, value in shares.items() if name in names} | took


def _of_teacher(config: Config, kept: Mapping[str, Any], found: bool) -> dict[str, Any]:
    """The teacher's weights. `same` must not ask for weights that only the run's own network has."""
    arch, given = teacher_arch(config), config.teacher_weights
    borrowed = given == "same" and found and arch != config.arch and config.weights != "none"
    if given != AUTO and not borrowed:
        return {}
    there = kept.get("teacher_weights", "same")
    if there == "same":
        there = _pretrained("the teacher's weights", arch, config)
    return {"teacher_weights": there}


def _pretrained(what: str, arch: str, config: Config) -> str:
    """`DEFAULT` if the network's pretrained weights can be had, else `none`. The log says which, and why."""
    name = network(arch).name
    found, reason = weights.default(arch, config.image_size, offline=config.offline)
    if found == "none":
        log.info("%s: %s begins at random, which takes many more images; %s", what, name, reason)
    else:
        log.info("%s: %s begins with its pretrained weights, %s", what, name, found)
    return found


def _advise(config: Config, pool: int) -> None:
    """Recommend pretrained weights to those who begin at random and train a head alone, or on few images."""
    few, head = presets.is_own(config.data) and pool < FEW, config.train == "head"
    if (few or head) and weights.DEFAULT in network(config.arch).weights():
        few_for_that = f"{pool} training images are few for that"
        log.info(
            "%s begins at random, and %s; --weights %s begins with pretrained weights", config.arch,
            "features of a random network tell little about an image" if head else few_for_that,
            weights.DEFAULT,
        )  # fmt: skip
