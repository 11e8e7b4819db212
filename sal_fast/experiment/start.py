"""Choose the images that are labelled at the start (`--start-by`)."""

import os
from pathlib import Path

import torch

from sal_fast import query, seeds
from sal_fast.data import splits
from sal_fast.data.features import FeatureStore
from sal_fast.data.store import Store
from sal_fast.distributed import Ranks
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.experiment.networks import whole_model
from sal_fast.train import score

FILE = ".txt"


def chosen(config: Config, store: Store, count: int, ranks: Ranks) -> list[str]:
    """The ids of the start set, `count` of them. They are the same for every regime with one seed.

    If people are not asked for maps of images that have masks, `stratified` prefers these images.

    Raises InputError for a criterion that reads what an untrained network cannot give, and for a file that
    does not name `count` training images, each once.
    """
    table = store.table
    pool = table.rows("train")
    if config.start_by == "stratified":
        labels = [table.labels[row] for row in pool]
        has_mask = [table.masks[row] is not None for row in pool] if config.uses_own_masks else None
        positions = splits.start_set(labels, count, seeds.stream(config.seed, "start"), has_mask)
    elif config.start_by.endswith(FILE):
        return _named(Path(os.path.expanduser(config.start_by)), {table.ids[row] for row in pool}, count)
    else:
        positions = _by_criterion(config, store, count, ranks)
    return [table.ids[pool[position]] for position in positions]


def _named(path: Path, pool: set[str], count: int) -> list[str]:
    """The ids in a file, one a line."""
    try:
        ids = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--start-by {path}: it cannot be read ({error})") from None
    unknown = [name for name in ids if name not in pool]
    if unknown:
        raise InputError(f"--start-by {path}: {unknown[0]!r} is no training image")
    if len(set(ids)) != len(ids) or len(ids) != count:
        raise InputError(
            f"--start-by {path}: expected {count} different ids (--start-fraction), got {len(ids)}, of which "
            f"{len(set(ids))} differ"
        )
    return ids


def _by_criterion(config: Config, store: Store, count: int, ranks: Ranks) -> list[int]:
    """Positions in the pool that a criterion chooses by the features of the untrained network."""
    reads = query.needs_of(config.start_by)
    refused = sorted(reads & {"logits", "model"})
    if refused:
        raise InputError(
            f"--start-by {config.start_by}: it reads {refused[0]}, and nothing is trained yet; expected "
            f"stratified, random, kmeans, typiclust, core-set, a file of ids (.txt), or a plug-in that "
            f"declares what it reads with @sal_fast.query.needs, without logits and model"
        )
    rows = store.rows("train")
    features = None
    if "features" in reads:
        features = _features(config, store, rows, ranks)
    pool = query.Pool(
        [store.table.ids[row] for row in rows.tolist()],
        features=features,
        labelled=query.Labelled(features=None if features is None else features[:0]),
        images=lambda positions: store.pictures(rows[positions]),
        classes=store.table.classes,
        device=store.device,
        group=ranks.group,
    )
    seed = seeds.integer(config.seed, "start")
    found = query.select(config.start_by, pool, count, seed=seed, key_seed=config.seed)
    positions: list[int] = found.positions.tolist()
    return positions


def _features(config: Config, store: Store, rows: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """The pooled features of the pool, by the network as it is before training."""
    if isinstance(store, FeatureStore):
        return store.pooled[rows]
    model = whole_model(config, len(store.table.classes)).to(store.device)
    features = score(model, store, rows, ranks=ranks)[1]
    assert features is not None
    return features
