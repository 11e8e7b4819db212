"""The stores of a run that trains the head alone: a network that stays as it is looks at each image once.

The run folder keeps what a resumed run needs so that it decodes nothing: `frozen/data` is a prepared folder
without images, and `frozen/<key>` holds the features of one network. A prepared data set may hold features
itself, in `features/<key>` (`sal-fast data prepare --arch`).
"""

import hashlib
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sal_fast._util.devices import torch_device
from sal_fast.data import StoreOptions, Table, augment, decode, load_table, open_store, prepare, prepared
from sal_fast.data.augment import Augmentation
from sal_fast.data.features import FeatureStore, feature_store
from sal_fast.data.store import Store
from sal_fast.distributed import ALONE, Ranks
from sal_fast.experiment import checks
from sal_fast.experiment.config import Config
from sal_fast.experiment.networks import teacher_arch, teacher_weights, whole_model
from sal_fast.models import Classifier, resolved
from sal_fast.train.evaluate import in_halves

FOLDER = "frozen"


def open_stores(
    config: Config, table: Table, options: StoreOptions, run_folder: Path, ranks: Ranks
) -> tuple[FeatureStore, FeatureStore]:
    """The features of the run's network, and those of its teacher, which may be the same.

    Raises InputError that names the files that cannot be used.
    """
    images = _images(table, options, run_folder, ranks)
    if ranks.first:
        checks.check_twice(config, images)
    own = features(config, images, _places(table, run_folder), ranks)
    same = (teacher_arch(config), teacher_weights(config)) == (config.arch, config.weights)
    if not config.its_regime.has_teacher or same:
        return own, own
    return own, features(config, images, _places(table, run_folder), ranks, teacher=True)


def features(
    config: Config, images: Store, places: list[Path], ranks: Ranks, *, teacher: bool = False
) -> FeatureStore:
    """The features of a network, which are computed if none of the folders `places` holds them.

    They are written to the last of the folders.
    """
    model = whole_model(config, len(images.table.classes), teacher).to(images.device).eval()
    about = _about(config, images, model) if ranks.first else {}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    folders = [place / key for place in places]
    there = [folder for folder in folders if (folder / "features.json").is_file()]
    crops = [Augmentation(config.augment, config.seed, 0, number) for number in range(config.crops)]

    @torch.no_grad()
    def look(batch: torch.Tensor) -> torch.Tensor:
        return in_halves(model.features, batch)

    return feature_store(images, [*there, folders[-1]][0], about, look, crops, ranks)


def prepare_features(config: Config) -> None:
    """Keep a network's features in the prepared folder that `config.data` names."""
    table = load_table(config.data)
    assert isinstance(table, prepared.PreparedTable)
    with closing(decode.choose(config.decoder, torch_device(config.device))) as decoder:
        stored = augment.stored_size(config.augment, config.image_size)
        images = open_store(table, StoreOptions(config.image_size, stored, decoder, "stream"))
        features(config, images, [table.folder / "features"], ALONE)


def _images(table: Table, options: StoreOptions, run_folder: Path, ranks: Ranks) -> Store:
    """The store of the images, which are decoded when somebody looks at them."""
    options = replace(options, keep="stream")
    if isinstance(table, prepared.PreparedTable) or not ranks.first:
        return open_store(table, options)
    recipe = prepared.Recipe(options.image_size, options.stored_size, copy=False)
    broken = prepare.prepare(table, run_folder / FOLDER / "data", recipe, options.decoder)
    if broken:
        return open_store(table, options)  # it raises the error that names them
    return open_store(prepared.read(run_folder / FOLDER / "data"), options)


def _places(table: Table, run_folder: Path) -> list[Path]:
    """The folders in which features may be. New ones are written to the last."""
    own = run_folder / FOLDER
    return [table.folder / "features", own] if isinstance(table, prepared.PreparedTable) else [own]


def _about(config: Config, images: Store, model: Classifier) -> dict[str, Any]:
    """All that the features depend on."""
    digest, head = hashlib.sha256(), f"{model.backbone.head_name(model.net)}."
    for name, value in model.net.state_dict().items():
        if not name.startswith(head):
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    crops = {"augment": config.augment, "crops": config.crops, "seed": config.seed} if config.crops else {}
    return {
        "network": model.backbone.name,
        "weights": digest.hexdigest(),
        "output_stride": config.output_stride,
        "precision": resolved(config.precision, images.device),
        "images": _digest(images.table, with_splits=config.crops > 0),
        "image_size": config.image_size,
        "stored_size": augment.stored_size(config.augment, config.image_size),
        **crops,
    }


def _digest(table: Table, *, with_splits: bool) -> str:
    """SHA-256 of the ids and files of all rows. Only crops depend on the splits."""
    assert isinstance(table, prepared.PreparedTable)
    whole = hashlib.sha256()
    for name, split, digest in zip(table.ids, table.split, table.digests, strict=True):
        whole.update(f"{name}\t{split if with_splits else ''}\t".encode() + digest)
    return whole.hexdigest()
