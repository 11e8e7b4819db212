"""Checks that a configuration, its networks and its data fit together. InputError names what does not."""

import logging

import torch

from sal_fast import models
from sal_fast.data import Store, Table, catalog, duplicates, groups
from sal_fast.data.table import UNLABELLED
from sal_fast.errors import InputError
from sal_fast.experiment import budget
from sal_fast.experiment.config import Config
from sal_fast.experiment.networks import new_model, teacher_arch, teacher_weights
from sal_fast.models import FEATURES, map_shape, weights

log = logging.getLogger(__name__)


def check_networks(config: Config) -> None:
    """Refuse a network whose library is not installed, and a CAM layer that the network does not have."""
    for arch in (config.arch, *([teacher_arch(config)] if config.its_regime.has_teacher else [])):
        models.network(arch).check_installed()
    if config.cam_layer != FEATURES:
        with torch.device("meta"):
            models.build(config.arch, 2, cam_layer=config.cam_layer, compiled=config.compile)


def check_weights(config: Config) -> None:
    """Refuse weights that would have to be downloaded, with --offline."""
    if config.offline:
        weights.check_kept(config.arch, config.weights)
        if config.its_regime.has_teacher:
            weights.check_kept(teacher_arch(config), teacher_weights(config))


def check_labels(config: Config, table: Table) -> None:
    """Refuse images without a class, unless people are asked for the classes."""
    unknown = table.labels.count(UNLABELLED)
    if unknown and config.annotator == "data":
        raise InputError(
            f"{table.name}: {unknown} images have no label, the first is "
            f"{table.ids[table.labels.index(UNLABELLED)]!r}; `sal-fast label` asks people for them, and so "
            f"does --annotator people"
        )


def check_maps(config: Config, table: Table) -> None:
    """Refuse data without the masks that the regime needs.

    Warn if the human budget is smaller than the start set.
    """
    regime = config.its_regime
    drawn = [row for row in table.rows("train") if table.masks[row] is not None]
    if regime.uses_human_maps and not drawn and config.annotator == "data":
        raise InputError(
            f"{table.name}: no masks for its training images, and regime {config.regime!r} needs them; "
            f"put them in masks/<class>/<name>.png (or the manifest's mask column), or use --regime b1"
        )
    if config.control_maps == "shuffled" and len(drawn) == 1:
        raise InputError(
            f"{table.name}: one training image has a mask, and --control-maps shuffled gives each the mask "
            f"of another one; add masks, or choose another word"
        )
    share = config.human_budget
    start, _ = config.fractions(len(table.rows("train")))
    below = not isinstance(share, str) and share < start - budget.TOLERANCE
    if below and regime.uses_the_budget:
        log.warning(
            "--human-budget %s is below --start-fraction %s; the start set has human maps all the same",
            f"{share:g}", f"{start:g}",
        )  # fmt: skip


def check_drawn(config: Config, samples: Store) -> None:
    """Refuse training images whose masks all say nothing, if the regime needs maps.

    Warn if Dice cannot be measured.
    """
    rows, drawn = samples.rows("train"), samples.masks.drawn()
    if not bool(drawn[samples.rows("test")].any()):
        log.warning(
            "%s has no mask with a foreground in its test split; Dice is not measured", samples.table.name
        )
    count = int(samples.has_mask[rows].sum())
    needed = config.its_regime.uses_human_maps and config.annotator == "data"
    if needed and count and not bool(drawn[rows].any()):
        raise InputError(
            f"{samples.table.name}: its training images have {count} masks, all of them empty or one grey "
            f"everywhere, and regime {config.regime!r} needs foreground and background; look at them with "
            f"`sal-fast data check --preview`, or use --regime b1"
        )


def check_twice(config: Config, samples: Store) -> None:
    """Refuse a picture that is in several splits or classes, unless the configuration allows it.

    Other pictures that occur twice, and those of the paper's data sets, are only told.
    """
    if samples.traits is not None:
        allowed = catalog.allows(samples.table, config.allow_leaks)
        duplicates.check(samples.table, samples.traits, allowed=allowed)


def check_groups(config: Config, table: Table, *, begun: bool) -> None:
    """Refuse a group that lies in several splits, unless the configuration allows it.

    A run that is `begun` keeps its splits, so the user is only warned.
    """
    groups.check(table, allowed=begun or catalog.allows(table, config.allow_leaks))


def check_features(config: Config, table: Table, plan: budget.Plan) -> None:
    """Refuse features that are too few to compare maps at.

    Refuse also 1x1 features in a batch of one image: batch norm would get one value for each channel.
    """
    for teacher in (False, True) if config.its_regime.has_teacher else (False,):
        arch = teacher_arch(config) if teacher else config.arch
        model = new_model(config, len(table.classes), teacher)
        channels, *size = map_shape(model, config.image_size)
        if config.probe == "cam" and channels != model.head.in_features:
            raise InputError(
                f"--cam-layer {model.cam_layer} of {arch} has {channels} channels, and --probe cam needs the "
                f"{model.head.in_features} of the head's inputs; name another layer, or use --probe hirescam"
            )
        one = 1 in (config.batch_size, plan.labelled[0]) and config.train == "all"
        if one and map_shape(model, config.image_size, FEATURES)[1:] == (1, 1):
            raise InputError(
                f"{arch} has 1x1 features at --image-size {config.image_size}, and a batch of one image "
                f"cannot be normalised then; lower --output-stride, or raise --image-size or --start-fraction"
            )
        if config.its_regime.uses_maps and config.map_size is None and min(size) < 3:
            can = models.network(arch).strides
            lower = f"lower --output-stride (it is {config.output_stride}) or " if can else ""
            where = "features" if model.cam_layer == FEATURES else f"maps in {model.cam_layer}"
            raise InputError(
                f"{arch} has {size[0]}x{size[1]} {where} at --image-size {config.image_size}: too few to "
                f"compare maps at (3x3 at least); {lower}raise --image-size"
            )
