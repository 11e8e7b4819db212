"""The networks of a run: made new, or read from what the run kept."""

from __future__ import annotations

from pathlib import Path

from sal_fast import models, seeds
from sal_fast.distributed import Ranks
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.models import Arch, Classifier, build, weights


def new_model(config: Config, classes: int, teacher: bool = False) -> Classifier:
    """The network every round starts from, or the teacher's: the same initial weights each time.

    A layer's name belongs to one network: the CAM of a teacher of another is made of its features.
    """
    arch = teacher_arch(config) if teacher else config.arch
    own = arch == config.arch
    try:
        return build(
            arch,
            classes,
            weights=teacher_weights(config) if teacher else config.weights,
            output_stride=config.output_stride if own or arch.startswith("resnet") else 32,
            seed=seeds.integer(config.seed, "initial-weights"),
            precision=config.precision,
            compiled=config.compile,
            cam_layer=config.cam_layer if own else models.FEATURES,
        )
    except InputError as error:
        raise InputError(f"the teacher (see --teacher-weights): {error}" if teacher else error) from None


def teacher_arch(config: Config) -> Arch:
    return config.arch if config.teacher_arch == "same" else config.teacher_arch


def teacher_weights(config: Config) -> str:
    """`same`: those of --weights; but a file holds one network's alone."""
    if config.teacher_weights != "same":
        return config.teacher_weights
    fits = teacher_arch(config) == config.arch or not weights.is_file(config.weights)
    return config.weights if fits else "none"


def load_kept(model: Classifier, arch: Arch, path: Path, ranks: Ranks) -> None:
    """Weights that this run kept; the first rank reads them."""
    if ranks.first:
        weights.load_into(model.net, arch, str(path))
    ranks.same(model)
