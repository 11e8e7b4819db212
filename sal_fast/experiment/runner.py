"""From a configuration to a finished run folder."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

import sal_fast
from sal_fast import annotate, distributed, seeds
from sal_fast._util.curves import aulc
from sal_fast._util.files import write_json
from sal_fast.data import Table, augment, catalog, decode, load_table, open_store, splits, store
from sal_fast.data.masks import Masks
from sal_fast.data.table import UNLABELLED
from sal_fast.distributed import Ranks
from sal_fast.errors import InputError
from sal_fast.experiment import budget
from sal_fast.experiment.algorithm import active_learning
from sal_fast.experiment.config import Config
from sal_fast.experiment.lab import Lab
from sal_fast.experiment.networks import new_model, teacher_arch
from sal_fast.experiment.people import Waiting
from sal_fast.experiment.regimes import REGIMES
from sal_fast.experiment.run_folder import RunFolder
from sal_fast.models import FEATURES, map_shape, resolved, weights

OWN = ("teacher_weights", "generator")  # files that say who draws maps


def run(config: Config, until: int | None = None) -> Path:
    """Run, or continue, the experiment that `config` describes; returns the run folder.

    `until`: stop after so many rounds; a later call goes on from there.

    Raises InputError, before anything is written over, for anything that cannot work, and Waiting where
    people have to answer first.
    """
    config.check()
    folder = RunFolder(config.run_folder)
    with (
        distributed.ranks() as ranks,
        folder.lock() if ranks.first else nullcontext(),
        _deterministic(config.deterministic),
    ):
        try:
            _run(config, folder, ranks, until)
        except Waiting:
            ranks.number(0)  # torchrun ends all when one ends: not while the first writes its round
            raise
    return folder.path


def _run(config: Config, folder: RunFolder, ranks: Ranks, until: int | None) -> None:
    """What every rank does; the first alone looks into the folder, and writes to it."""
    options = dataclasses.asdict(config) | {"data": source(config), "root": root(config)}
    if ranks.first:
        folder.check(options)
    if ranks.number(ranks.first and folder.finished()):
        print(f"{folder.path} is finished; nothing to do")
        return
    device = _device(config, ranks)
    table = _table(config, folder, ranks)
    _check_labels(config, table)
    plan = config.plan(len(table.rows("train")))
    generator = None if config.generator is None else annotate.load(config.generator)
    stored = augment.stored_size(config.augment, config.image_size)
    decoder = decode.choose(config.decoder, device)
    store.plan(table, config.image_size, stored, device, config.store)
    if ranks.first:
        _check_maps(config, table)
    check_features(config, table, plan)
    samples = open_store(table, config.image_size, stored, decoder, config.store)
    _check_same(samples, ranks)
    segmented = _segmented(config, samples, decoder, generator, ranks)
    start = _start(config, table, plan)
    if ranks.first:
        folder.claim(
            {
                "config": options,
                "environment": _environment(config, device, decoder),
                "data": {
                    "name": table.name,
                    "fingerprint": samples.fingerprint,
                    "classes": table.classes,
                    "counts": {split: len(table.rows(split)) for split in splits.SPLITS},
                },
                "splits": {split: [table.ids[row] for row in table.rows(split)] for split in splits.SPLITS},
                "start": start,
                "inputs": _digests(config, segmented),
            }
        )
        row_of = {name: row for row, name in enumerate(table.ids)}
        chosen = torch.tensor([row_of[name] for name in folder.run()["start"]])
    else:
        chosen = torch.empty(len(start), dtype=torch.int64)
    lab = Lab(config, samples, plan, folder, segmented, ranks.broadcast(chosen).to(device), ranks, generator)
    _announce(config, lab)
    active_learning(lab, until)
    if ranks.first and len(lab.lines) == plan.rounds:
        write_json(folder.summary_json, summary(config, lab.lines))


def source(config: Config) -> str:
    """`--data` in a spelling that does not depend on where the command is given."""
    named = config.data == "builtin" or config.data in catalog.ENTRIES
    return config.data if named else str(Path(os.path.expanduser(config.data)).resolve())


def root(config: Config) -> str | None:
    """`--root` likewise."""
    return None if config.root is None else str(Path(os.path.expanduser(config.root)).resolve())


def summary(config: Config, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """summary.json: areas under the learning curves, and the last round."""
    labelled = [row["labelled"] for row in rows]
    last = rows[-1]
    dice = [row["dice"] for row in rows]
    return {
        "regime": config.regime,
        "criterion": config.criterion,
        "seed": config.seed,
        "preset": config.preset,
        "aulc_accuracy": aulc(labelled, [row["accuracy"] for row in rows]),
        "aulc_dice": None if None in dice else aulc(labelled, dice),
        **{name: last[name] for name in ("accuracy", "dice", "dice_floor")},
        **{name: last[name] for name in ("labelled", "human_maps", "generated_maps", "empty_maps")},
        **({"people": last["people"]} if "people" in last else {}),
        "rounds": len(rows),
        "seconds": round(sum(row["seconds"] for row in rows), 3),
    }


def _device(config: Config, ranks: Ranks) -> torch.device:
    name = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    if ranks.count > 1 and name.startswith("cuda"):
        if name != "cuda":
            raise InputError(f"--device {name}: each of several processes takes a GPU of its own; use cuda")
        name = f"cuda:{ranks.local}"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("expected auto, cpu or cuda")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device


@contextmanager
def _deterministic(really: bool) -> Iterator[None]:
    """Only for the run: the process may go on to another one."""
    before = torch.are_deterministic_algorithms_enabled()
    if really:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(really or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _table(config: Config, folder: RunFolder, ranks: Ranks) -> Table:
    """The samples with their splits, the same for every rank."""
    table = load_table(config.data, config.root)
    if int(ranks.number(len(table))) != len(table):
        raise InputError(
            f"rank {ranks.rank} finds {len(table)} images in {table.name}, the first rank others"
        )
    codes = torch.empty(len(table), dtype=torch.int64)
    if ranks.first:
        table = _split(config, folder, table)
        codes = torch.tensor([splits.SPLITS.index(split) for split in table.split])
    return table.with_split([splits.SPLITS[code] for code in ranks.broadcast(codes).tolist()])


def _split(config: Config, folder: RunFolder, table: Table) -> Table:
    """As the run has them already, or made from the seed."""
    if not folder.run_json.exists():
        return splits.assign(table, seeds.stream(config.seed, "split"))
    kept = {name: split for split, names in folder.run()["splits"].items() for name in names}
    if kept.keys() != set(table.ids):
        odd = sorted(kept.keys() ^ set(table.ids))[0]
        raise InputError(
            f"{folder.path} was made from other data: {odd!r} is {'gone' if odd in kept else 'new'} "
            f"in {table.name}; choose another --out"
        )
    return table.with_split([kept[name] for name in table.ids])


def _check_same(samples: store.Store, ranks: Ranks) -> None:
    """Refuse a rank that reads other files than the first does."""
    mine = torch.tensor(list(bytes.fromhex(samples.fingerprint)), dtype=torch.uint8)
    if not torch.equal(ranks.broadcast(mine.clone()), mine):
        raise InputError(f"rank {ranks.rank} reads other images, masks or labels than the first rank does")


def _check_labels(config: Config, table: Table) -> None:
    unknown = table.labels.count(UNLABELLED)
    if unknown and config.annotator == "data":
        raise InputError(
            f"{table.name}: {unknown} images have no label, the first is "
            f"{table.ids[table.labels.index(UNLABELLED)]!r}; --annotator people asks for them"
        )


def _check_maps(config: Config, table: Table) -> None:
    """What a regime needs to have maps to compare, and a resolution to compare them at."""
    regime = REGIMES[config.regime]
    drawn = [row for row in table.rows("train") if table.masks[row] is not None]
    if regime.uses_human_maps and not drawn and config.annotator == "data":
        raise InputError(
            f"{table.name}: no masks for its training images, and regime {config.regime!r} needs them; "
            f"put them in masks/<class>/<name>.png (or the manifest's mask column), or use --regime b1"
        )
    if all(table.masks[row] is None for row in table.rows("test")):
        print(
            f"sal-fast: note: {table.name} has no masks in its test split; Dice is not measured",
            file=sys.stderr,
        )
    share = config.human_budget
    if (
        not isinstance(share, str)
        and share < config.start_fraction - budget.TOLERANCE
        and config.regime
        in (
            "sal",
            "sal-single",
            "no-ai-saliency",
            "tait",
        )
    ):
        print(
            f"sal-fast: note: --human-budget {share:g} is below --start-fraction "
            f"{config.start_fraction:g}; the start set has human maps all the same",
            file=sys.stderr,
        )


def check_features(config: Config, table: Table, plan: budget.Plan) -> None:
    """Features enough to compare maps at, and more than one value per channel for batch norm."""
    for teacher in (False, True) if config.regime == "tait" else (False,):
        arch = teacher_arch(config) if teacher else config.arch
        model = new_model(config, len(table.classes), teacher)
        channels, *size = map_shape(model, config.image_size)
        if config.probe == "cam" and channels != model.head.in_features:
            raise InputError(
                f"--cam-layer {model.cam_layer} of {arch} has {channels} channels, and --probe cam needs the "
                f"{model.head.in_features} of the head's inputs; name another layer, or use --probe hirescam"
            )
        one = 1 in (config.batch_size, plan.labelled[0])
        if one and map_shape(model, config.image_size, FEATURES)[1:] == (1, 1):
            raise InputError(
                f"{arch} has 1x1 features at --image-size {config.image_size}, and a batch of one image "
                f"cannot be normalised then; lower --output-stride, or raise --image-size or --start-fraction"
            )
        if REGIMES[config.regime].uses_maps and config.map_size is None and min(size) < 3:
            resnet = arch.startswith("resnet")
            lower = f"lower --output-stride (it is {config.output_stride}) or " if resnet else ""
            where = "features" if model.cam_layer == FEATURES else f"maps in {model.cam_layer}"
            raise InputError(
                f"{arch} has {size[0]}x{size[1]} {where} at --image-size {config.image_size}: too few to "
                f"compare maps at (3x3 at least); {lower}raise --image-size"
            )


def _start(config: Config, table: Table, plan: budget.Plan) -> list[str]:
    """The start set's ids: the same for every regime and criterion of a seed."""
    pool = table.rows("train")
    labels = [table.labels[row] for row in pool]
    chosen = splits.start_set(labels, plan.labelled[0], seeds.stream(config.seed, "start"))
    return [table.ids[pool[position]] for position in chosen]


def _segmented(
    config: Config,
    samples: store.Store,
    decoder: decode.Decoder,
    generator: annotate.Generator | None,
    ranks: Ranks,
) -> Masks | None:
    """The segmenter's masks of the training pool, in its order; those that are missing are made first."""
    if config.regime != "segmenter" or config.segmenter_masks is None:
        return None
    folder, rows = Path(os.path.expanduser(config.segmenter_masks)), samples.rows("train")
    checkpoint = config.segmenter_weights
    if ranks.first and checkpoint is not None:
        annotate.make_missing(
            folder, samples, rows, lambda: annotate.segment_anything(checkpoint, samples.device)
        )
    elif ranks.first and generator is not None:
        annotate.make_missing(folder, samples, rows, lambda: generator)
    ranks.number(0)  # the others wait for the files
    return annotate.segmenter_masks(folder, samples, rows, decoder)


def _digests(config: Config, segmented: Masks | None) -> dict[str, str]:
    """Of the files beside the data that decide the result."""
    digests = own_digests(config)
    if weights.is_file(config.weights):
        digests["weights"] = _digest(config.weights)
    if segmented is not None:
        digests["segmenter_masks"] = segmented.digest()
    return digests


def own_digests(config: Config) -> dict[str, str]:
    """Of OWN: runs that share their first rounds may differ in them."""
    digests = {}
    if config.regime == "tait" and weights.is_file(config.teacher_weights):
        digests["teacher_weights"] = _digest(config.teacher_weights)
    if config.generator is not None and config.regime != "segmenter":  # its masks are files already
        written = annotate.source_file(config.generator)
        if written is not None:
            digests["generator"] = _digest(str(written))
    return digests


def _digest(path: str) -> str:
    return hashlib.sha256(Path(os.path.expanduser(path)).read_bytes()).hexdigest()


def _environment(config: Config, device: torch.device, decoder: decode.Decoder) -> dict[str, Any]:
    networks = config.arch, teacher_arch(config) if config.regime == "tait" else None
    return {
        "sal_fast": sal_fast.__version__,
        "native": dataclasses.asdict(sal_fast.build_info()),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        **({"timm": importlib.metadata.version("timm")} if "xception" in networks else {}),
        "numpy": np.__version__,
        "pillow": importlib.metadata.version("pillow"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "decoder": decoder.name,
        "precision": resolved(config.precision, device),
    }


def _announce(config: Config, lab: Lab) -> None:
    table = lab.store.table
    start = "the last round's" if config.warm_start else f"the same initial ({config.weights})"
    print(
        f"{table.name}: {len(lab.pool)} train, {len(table.rows('val'))} val, {len(lab.test_rows)} test, "
        f"{len(table.classes)} classes; regime {config.regime}, criterion {config.criterion}, {config.arch}, "
        f"preset {config.preset}, seed {config.seed}, on {lab.store.device}\n"
        f"every round trains from {start} weights; {lab.plan.rounds} rounds, {lab.finished_rounds} finished; "
        f"{lab.folder.path}\n"
        f"round  labelled  human  generated  empty  accuracy   dice  floor  seconds",
        flush=True,
    )
