"""The networks of a run, which are made new or read from the weights that the run kept."""

import functools
from pathlib import Path

from sal_fast import models, seeds
from sal_fast.distributed import Ranks
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.models import Classifier, build, frozen, map_shape, weights


def new_model(config: Config, classes: int, teacher: bool = False) -> Classifier:
    """The network that every round starts from, or the teacher's, with the same initial weights each time.

    With `--train head` it is a head on features (`sal_fast.models.frozen`), else it is `whole_model`.
    """
    if config.train == "all":
        return whole_model(config, classes, teacher)
    arch = teacher_arch(config) if teacher else config.arch
    stride = config.output_stride if models.network(arch).strides else 32
    shape = _feature_shape(arch, config.image_size, stride)
    return frozen.on_features(arch, shape, classes, seeds.integer(config.seed, "initial-weights"))


@functools.cache
def _feature_shape(arch: str, image_size: int, output_stride: int) -> tuple[int, int, int]:
    backbone = models.network(arch).at(image_size)
    return map_shape(build(backbone, 2, output_stride=output_stride), image_size)


def whole_model(config: Config, classes: int, teacher: bool = False) -> Classifier:
    """The network of a run, or the teacher's, which takes images.

    The name of a CAM layer belongs to one network. So if the teacher is another network, its maps are made of
    its features.
    """
    arch = teacher_arch(config) if teacher else config.arch
    own = arch == config.arch
    try:
        return build(
            models.network(arch).at(config.image_size),
            classes,
            weights=teacher_weights(config) if teacher else config.weights,
            output_stride=config.output_stride if own or models.network(arch).strides else 32,
            seed=seeds.integer(config.seed, "initial-weights"),
            precision=config.precision,
            compiled=config.compile,
            cam_layer=config.cam_layer if own else models.FEATURES,
        )
    except InputError as error:
        raise InputError(f"the teacher (see --teacher-weights): {error}" if teacher else error) from None


def teacher_arch(config: Config) -> str:
    """The name of the teacher's network."""
    return config.arch if config.teacher_arch == "same" else config.teacher_arch


def teacher_weights(config: Config) -> str:
    """The teacher's initial weights, as `Config.weights` names them.

    `same` stands for those of --weights. But a file fits one network alone, so a teacher that is another
    network then starts from random weights.
    """
    if config.teacher_weights != "same":
        return config.teacher_weights
    fits = teacher_arch(config) == config.arch or not weights.is_file(config.weights)
    return config.weights if fits else "none"


def load_kept(model: Classifier, arch: str, path: Path, ranks: Ranks) -> None:
    """Load weights that this run kept into a model. The first rank reads the file for all ranks."""
    if ranks.first:
        weights.load_into(model.net, model.backbone, str(path))
    ranks.same(model)
