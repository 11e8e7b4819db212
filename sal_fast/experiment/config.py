"""The whole configuration of a run, in one dataclass that the command line and a TOML file fill."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import torch
import tyro

from sal_fast import models, ops, plugins
from sal_fast._util.suggest import suggest
from sal_fast._util.words import AUGMENTS, DECODERS, KEEPS, Augment, DecoderName, Keep
from sal_fast.errors import InputError
from sal_fast.experiment.budget import AUTO, Plan, plan
from sal_fast.experiment.presets import PRESETS, default_preset
from sal_fast.experiment.regimes import REGIMES
from sal_fast.models import ARCHS, CAM_CLASSES, FEATURES, Arch

CHOICES: dict[str, tuple[str, ...]] = {
    "regime": tuple(REGIMES),
    "criterion": plugins.names("criterion"),
    "probe": ops.PROBES,
    "cam_class": CAM_CLASSES,
    "arch": ARCHS,
    "teacher_arch": ("same", *ARCHS),
    "saliency_loss": ops.SALIENCY_KINDS,
    "augment": AUGMENTS,
    "decoder": DECODERS,
    "store": KEEPS,
    "precision": models.PRECISIONS,
    "annotator": ("data", "people"),
    "preset": ("auto", *PRESETS),
}
CAN_CHANGE = ("sal", "sal-single")  # regimes whose model can be tried before it takes over


def _one_of(field: str) -> Any:
    return tyro.conf.arg(metavar="{" + ",".join(CHOICES[field]) + "}")


@dataclass(frozen=True)
class Config:
    """Run the paper's experiment (SAL, Algorithm 1) on a pool of images.

    With no argument: the built-in data set, on whatever the machine has. The same command continues a run
    that was interrupted.
    """

    data: str = "builtin"
    """`builtin`, a folder with images/<class>/ and masks/<class>/, a .csv or .parquet manifest, a folder that
    `sal-fast data prepare` made, or, with --root: cub200, flowers102, imagenet-s, ham10000, food201."""
    root: str | None = None
    """The folder that holds the official archives of --data, unpacked."""
    regime: Annotated[str, _one_of("regime")] = "sal"
    """Whose saliency maps are used (paper Sec. 5)."""
    criterion: Annotated[str, _one_of("criterion")] = "margin"
    """How images are chosen for labelling (App. A.1)."""
    probe: ops.Probe = "cam"
    """Saliency of a model, in training, generation and testing (App. H)."""
    cam_layer: str = FEATURES
    """The layer that saliency is made of: features (what is pooled), conv3 (a ResNet-50's last, before its
    batch norm, as in the public CYBORG code), or a module's dotted name, such as layer3 or layer4.1.conv2."""
    cam_class: models.CamClass = "labelled"
    """Whose CAM is compared in training and drawn for a query; testing takes the predicted class's."""
    arch: Arch = "resnet50"
    """The network; xception needs timm: pip install "sal-fast[xception]"."""
    weights: str = "none"
    """Initial weights: none, a weights name of torchvision (xception: timm), or a .safetensors, .pth or .pt
    file."""
    teacher_arch: Arch | Literal["same"] = "same"
    """The teacher's network in the regime tait (the paper's: xception)."""
    teacher_weights: str = "same"
    """The teacher's initial weights: none, a name or a file; same: those of --weights, but none where that is
    a file and the teacher another network."""
    output_stride: int = 32
    """Pixels per feature; 16, 8 or 4 keep more features of small images (ResNets)."""
    image_size: int = 224
    """Pixels a side: the network's input, and the frame that maps and Dice live in."""
    map_size: int | None = None
    """Pixels a side at which CAM and map are compared; None: the features' own resolution."""
    saliency_loss: ops.SaliencyKind = "ssim_l1"
    """Distance of CAM and map (Eq. 1); mse is what the public CYBORG code computes."""
    alpha: float | None = None
    """Weight of classification in the accuracy model's loss (Eq. 1); None: the regime's."""
    augment: Augment = "none"
    """none; standard: random resized crop and flip, for image and map alike; color: that, and brightness,
    contrast and saturation."""
    decoder: DecoderName = "auto"
    """Who decodes: dali, torch (by torchvision), pillow; auto: dali on a GPU that has it, else torch."""
    store: Keep = "auto"
    """Decoded images: resident on the device, or stream from disk each epoch; auto: resident if they take at
    most half of the memory that is free."""
    epochs: int = 50
    """Epochs a model."""
    batch_size: int = 20
    """Images a step."""
    lr: float = 0.005
    """SGD's rate (momentum 0.9, weight decay 1e-6)."""
    lr_step: int = 12
    """Epochs after which the rate falls to a tenth, again and again."""
    start_fraction: float = 0.05
    """Share of the training pool labelled at the start."""
    query_fraction: float = 0.05
    """Share of the training pool that a query asks for."""
    stop_fraction: float = 1.0
    """Share of the training pool at which the run ends."""
    human_budget: float | Literal["auto"] = 0.2
    """Share of the training pool that gets human maps; auto: the model takes over once its predictions of
    what people draw stop getting better (regimes sal, sal-single)."""
    annotator: Annotated[str, _one_of("annotator")] = "data"
    """Who answers queries: data, the data set's own labels and masks; people, by `sal-fast query export` and
    `import`, the run ends with status 75 while it waits for them."""
    generator: str | None = None
    """Who draws maps in the interpretability model's place (regime sal), or the missing masks of the regime
    segmenter: package.module:function or file.py:function, see docs/generators.md."""
    segmenter_masks: str | None = None
    """For the regime segmenter: a folder of <id>.png; with --segmenter-weights or --generator those that are
    missing are made there."""
    segmenter_weights: str | None = None
    """A checkpoint of Segment Anything, for the regime segmenter."""
    warm_start: bool = False
    """Train each round from the last round's weights, not from the initial ones."""
    seed: int = 0
    """Every random draw follows from it."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    precision: Annotated[models.Precision, _one_of("precision")] = "auto"
    """Of the network's products: float32, bfloat16; auto: bfloat16 on a GPU that has it, float32 on a CPU."""
    compile: bool = False
    """Run the networks through torch.compile, on a GPU as CUDA graphs."""
    data_parallel: bool = False
    """Under torchrun: all processes train each model, a part of every batch each. Without it they take a
    model each."""
    deterministic: bool = False
    """Refuse operations that do not repeat bit by bit on a GPU; with --data-parallel cut batches into
    --shards parts, however many processes there are, so that their number changes nothing."""
    shards: int = 6
    """Parts of a batch with --data-parallel --deterministic, each with batch statistics of its own."""
    preset: Annotated[str, _one_of("preset")] = "auto"
    """Defaults of the schedule; auto: the data set's own, else cyborg (the reference's)."""
    out: str | None = None
    """The run folder; None: runs/<data>-<regime>-<criterion>-s<seed>."""
    config: str | None = None
    """A TOML file with any of these options; the command line goes before it."""

    def check(self) -> None:
        """Raise InputError for the first value that cannot be."""
        for field in CHOICES:
            check_choice(field, getattr(self, field))
        for field in ("image_size", "epochs", "batch_size", "lr_step", "shards"):
            if getattr(self, field) < 1:
                raise InputError(f"{_option(field)} {getattr(self, field)}: expected at least 1")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise InputError(f"--lr {self.lr:g}: expected a positive number")
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise InputError(f"--alpha {self.alpha:g}: expected 0 to 1")
        if self.map_size is not None and self.map_size < 3:
            raise InputError(f"--map-size {self.map_size}: expected at least 3")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed}: expected 0 to 2^63 - 1")
        if self.human_budget == AUTO and self.regime not in CAN_CHANGE:
            raise InputError(
                f"--human-budget auto: regime {self.regime!r} has no model to try before it takes over; "
                f"expected one of {', '.join(CAN_CHANGE)}, or a share"
            )
        if self.generator is not None and self.regime not in ("sal", "segmenter"):
            raise InputError(
                f"--generator {self.generator}: regime {self.regime!r} asks none; expected sal or segmenter"
            )
        if self.segmenter_weights is not None and (self.regime != "segmenter" or self.generator is not None):
            raise InputError(
                "--segmenter-weights goes with --regime segmenter, and without --generator: leave one out"
            )
        if self.regime == "segmenter" and self.segmenter_masks is None:
            raise InputError(
                "regime 'segmenter' needs --segmenter-masks FOLDER with <id>.png for every training image; "
                "with --segmenter-weights or --generator those that are missing are made there"
            )
        for arch in (self.arch, self.teacher_arch if self.regime == "tait" else "same"):
            models.check_installed(arch)
        if self.cam_layer != FEATURES:
            with torch.device("meta"):
                models.build(self.arch, 2, cam_layer=self.cam_layer, compiled=self.compile)

    def plan(self, pool: int) -> Plan:
        """The rounds for a training pool of `pool` images; InputError for fractions that cannot be."""
        return plan(pool, self.start_fraction, self.query_fraction, self.stop_fraction, self.human_budget)

    @property
    def run_folder(self) -> Path:
        if self.out is not None:
            return Path(os.path.expanduser(self.out))
        path = Path(os.path.expanduser(self.data)).resolve()
        name = path.stem if path.suffix.lower() in (".csv", ".parquet") else path.name
        return Path("runs") / f"{name}-{self.regime}-{self.criterion}-s{self.seed}"


def check_choice(field: str, value: object) -> None:
    """Raise InputError for a value that is none of the field's, with the nearest that is."""
    if value not in CHOICES[field]:
        raise InputError(f"unknown {field.replace('_', ' ')} {value!r}{suggest(value, CHOICES[field])}")


def resolve(asked: Mapping[str, Any], files: Iterable[Path] = ()) -> Config:
    """Defaults < preset < TOML files < `asked`; raises InputError for unknown names and wrong types."""
    types = get_type_hints(Config)
    given: dict[str, Any] = {}
    for path in files:
        given |= read_toml(path)
    given |= asked
    for name, value in given.items():
        if name not in types:
            raise InputError(f"unknown option {name!r}{suggest(name, tuple(types))}")
        if name in CHOICES:
            check_choice(name, value)
        elif not _fits(value, types[name]):
            raise InputError(f"{_option(name)}: expected {_spell(types[name])}, got {value!r}")
    preset = given.get("preset", "auto")
    if preset == "auto":
        preset = default_preset(given.get("data", "builtin"))
    chosen = {**PRESETS.get(preset, {}), **given, "preset": preset}
    if not chosen.get("arch", Config.arch).startswith("resnet") and "output_stride" not in given:
        chosen["output_stride"] = 32  # a preset's stride is for ResNets; the others refuse it
    return Config(**chosen)


def read_toml(path: Path) -> dict[str, Any]:
    """The options of a TOML file; dashes and underscores are one."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"--config: file not found: {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"--config: {path} is not TOML: {error}") from None
    return {name.replace("-", "_"): value for name, value in values.items()}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a field's type; a whole number is a number, True is not."""
    kinds = get_args(kind) or (kind,)
    words = [word for one in kinds for word in get_args(one)]
    return type(value) in kinds or value in words or (float in kinds and type(value) is int)


def _spell(kind: Any) -> str:
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    kinds = get_args(kind) or (kind,)
    words = [repr(word) for one in kinds for word in get_args(one)]
    return " or ".join([next(names[k] for k in kinds if k in names), *words])


def _option(field: str) -> str:
    return "--" + field.replace("_", "-")
