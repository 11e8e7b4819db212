"""The whole configuration of a run, in one dataclass that Python, the command line and a TOML file fill."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sal_fast import plugins
from sal_fast._util.suggest import suggest
from sal_fast._util.words import (
    AUGMENTS,
    CAM_CLASSES,
    DECODERS,
    KEEPS,
    PRECISIONS,
    PROBES,
    SALIENCY_KINDS,
    Augment,
    CamClass,
    DecoderName,
    Keep,
    Precision,
    Probe,
    SaliencyKind,
)
from sal_fast.errors import InputError
from sal_fast.experiment import presets
from sal_fast.experiment.budget import AUTO, Plan, plan
from sal_fast.experiment.options import UNSET, check_value, option, options_of, types_of
from sal_fast.experiment.regimes import REGIMES, Regime, those_that

WEIGHTS = (".safetensors", ".pth", ".pt")  # suffixes of files of weights


@dataclass(frozen=True)
class Config:
    """The options of one run of the paper's experiment (SAL, Algorithm 1).

    Every argument is optional, and an instance knows which ones were given: `given`. The others take the
    value of the preset (`preset="auto"` is the data set's own, else the schedule of the CYBORG reference),
    or the default. Reading an attribute always gives the resolved value. `sal-fast run --help` explains each
    option.

    Raises InputError for a value that is of another type, none of the option's words, or out of its bounds.
    """

    data: str = option("builtin", affects="data", plugin="data", any_text=True, path="always", axis=True)
    """The images: builtin; a folder with images/<class>/ and masks/<class>/; a .csv or .parquet manifest; a
    folder that `sal-fast data prepare` made; with --root cub200, flowers102, imagenet-s, ham10000 or
    food201; or a plug-in, file.py:object."""
    root: str | None = option(None, affects="data", path="always")
    """The folder that holds the official archives of --data, unpacked."""
    regime: str = option("sal", affects="maps network", choices=tuple(REGIMES), axis=True)
    """Which saliency maps are used, and who draws them (paper Sec. 5)."""
    criterion: str = option("margin", affects="query", plugin="criterion", compared=True, axis=True)
    """The rule by which images are chosen for labelling (App. A.1), or a plug-in, file.py:function."""
    probe: Probe = option("cam", affects="network training", choices=PROBES, compared=True, axis=True)
    """The kind of saliency map: in training, for generated maps and in testing (App. H)."""
    cam_layer: str = option("features", affects="network training")
    """The layer that saliency is made of: features (those that are pooled), conv3 (a ResNet-50's last
    convolution before its batch norm, as in the public CYBORG code), or a module's dotted name, such as
    layer3 or layer4.1.conv2."""
    cam_class: CamClass = option("labelled", affects="training", choices=CAM_CLASSES)
    """The class whose map is compared in training and drawn for a query. Testing always takes the predicted
    class."""
    arch: str = option("resnet50", affects="network training", plugin="network", compared=True, axis=True)
    """The network, or a plug-in, file.py:function. xception needs timm: pip install "sal-fast[xception]"."""
    weights: str = option("none", affects="network training", path="by suffix")
    """Initial weights: none, a weights name of torchvision (for xception: of timm), or a .safetensors, .pth
    or .pt file."""
    teacher_arch: str = option(
        "same", affects="maps network", choices=("same",), plugin="network", only="has_teacher"
    )
    """The teacher's network in the regime tait; same: that of --arch (the paper takes xception)."""
    teacher_weights: str = option("same", affects="maps network", path="by suffix", only="has_teacher")
    """The teacher's initial weights: none, a name or a file. same: those of --weights, but none where that
    is a file and the teacher is another network."""
    output_stride: int = option(32, affects="network training", least=1)
    """Pixels per feature. 16, 8 or 4 keep more features of small images (ResNets only)."""
    image_size: int = option(224, affects="network training", least=1)
    """Pixels a side of the network's input, and of the frame that maps and Dice live in."""
    map_size: int | None = option(None, affects="network training", least=3)
    """Pixels a side at which CAM and map are compared. Not given: the resolution of the features."""
    saliency_loss: SaliencyKind = option("ssim_l1", affects="training", choices=SALIENCY_KINDS)
    """The distance of CAM and map (Eq. 1). mse is what the public CYBORG code computes."""
    alpha: float | None = option(None, affects="maps", axis=True, least=0, most=1)
    """Weight of classification in the accuracy model's loss (Eq. 1). Not given: the regime's own."""
    augment: Augment = option("none", affects="training", choices=AUGMENTS)
    """none; standard: a random resized crop and flip, the same for image and map; color: that, and
    brightness, contrast and saturation."""
    decoder: DecoderName = option("auto", affects="", choices=DECODERS)
    """The library that decodes: dali, torch (torchvision) or pillow. auto: dali on a GPU that has it, else
    torch."""
    store: Keep = option("auto", affects="", choices=KEEPS)
    """Where decoded images are kept: resident on the device, or streamed from disk each epoch. auto:
    resident if they take at most half of the free memory."""
    epochs: int = option(50, affects="training", least=1)
    """Epochs that each model is trained for."""
    batch_size: int = option(20, affects="training network", least=1)
    """Images in a training step."""
    lr: float = option(0.005, affects="training", above=0)
    """Learning rate of SGD (momentum 0.9, weight decay 1e-6)."""
    lr_step: int = option(12, affects="training", least=1)
    """Epochs after which the rate falls to a tenth, again and again."""
    start_fraction: float = option(0.05, affects="rounds")
    """Share of the training pool that is labelled at the start."""
    query_fraction: float = option(0.05, affects="rounds")
    """Share of the pool that each query asks for."""
    stop_fraction: float = option(1.0, affects="rounds")
    """Share of the training pool at which the run ends."""
    human_budget: float | Literal["auto"] = option(
        0.2, affects="maps rounds", only="uses_the_budget", axis=True
    )
    """Share of the training pool that gets maps from people. auto: the model takes over once its predictions
    of what people draw stop getting better (regimes sal and sal-single)."""
    annotator: Literal["data", "people"] = option(
        "data",
        affects="maps",
        choices=("data", "people"),
        not_in_a_grid="a sweep does not wait for people; start such a run by itself",
    )
    """Who answers queries. data: the data set's own labels and masks. people: see `sal-fast query`; the run
    ends with status 75 while it waits for them."""
    generator: str | None = option(None, affects="maps", plugin="generator", only="takes_a_generator")
    """A plug-in, file.py:function, that draws maps in the interpretability model's place (regime sal), or
    the missing masks of the regime segmenter: docs/generators.md."""
    segmenter_masks: str | None = option(None, affects="maps", path="always", only="uses_a_segmenter")
    """The folder of <id>.png for the regime segmenter. With --segmenter-weights or --generator the missing
    ones are made there."""
    segmenter_weights: str | None = option(None, affects="maps", path="always", only="uses_a_segmenter")
    """A checkpoint of Segment Anything, for the regime segmenter."""
    warm_start: bool = option(False, affects="training")
    """Train each round from the last round's weights instead of the initial ones."""
    seed: int = option(0, affects="seed", axis=True, least=0, most=2**63 - 1)
    """Every random draw follows from it."""
    device: str = option("auto", affects="machine")
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    precision: Precision = option("auto", affects="training network", choices=PRECISIONS)
    """Precision of the network's products: float32 or bfloat16. auto: bfloat16 on a GPU that has it, float32
    on a CPU."""
    compile: bool = option(False, affects="training network")
    """Run the networks through torch.compile, on a GPU as CUDA graphs."""
    data_parallel: bool = option(False, affects="machine")
    """Under torchrun all processes train each model together, a part of every batch each. Without it they
    take a model each."""
    deterministic: bool = option(False, affects="machine")
    """Refuse operations that do not repeat bit by bit on a GPU. With --data-parallel batches are cut into
    --shards parts, however many processes there are, so that their number changes nothing."""
    shards: int = option(6, affects="training", least=1)
    """Parts of a batch with --data-parallel --deterministic, each with batch statistics of its own."""
    tracker: str = option(
        "table", affects="", plugin="tracker", not_in_a_grid="a sweep shows its runs itself"
    )
    """The plug-in that is told of every finished round: table, log, or file.py:function."""
    preset: str = option(presets.AUTO, affects="", choices=(presets.AUTO, *presets.PRESETS))
    """Defaults of the schedule. auto: the data set's own, else cyborg (the reference's)."""
    out: str | None = option(
        None,
        affects="",
        not_in_a_grid="the sweep's --out names the folder, and each run gets one of its own in it",
    )
    """The run folder. Not given: runs/<data>-<regime>-<criterion>-s<seed>."""
    config: str | None = option(None, affects="", not_in_a_grid="put the options into this file")
    """A TOML file with any of these options. Command-line values override the file."""

    def __post_init__(self) -> None:
        given = {name: value for name in OPTIONS if (value := getattr(self, name)) is not UNSET}
        for name, value in given.items():
            check_value(name, value, OPTIONS[name], TYPES[name])
        preset = presets.named(given.get("preset", presets.AUTO), given.get("data", OPTIONS["data"].default))
        chosen = {**presets.options(preset, given), **given, "preset": preset}
        for name, one in OPTIONS.items():
            object.__setattr__(self, name, chosen.get(name, one.default))
        object.__setattr__(self, "_given", frozenset(given))

    @property
    def given(self) -> frozenset[str]:
        """The names of the options that were given; the others have the preset's value or the default."""
        names: frozenset[str] = self.__dict__["_given"]
        return names

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Config:
        """A configuration of options by name; raises InputError with the nearest name for an unknown one."""
        for name in options:
            if name not in OPTIONS:
                raise InputError(f"unknown option {name!r}{suggest(name, OPTIONS)}")
        return cls(**options)

    @classmethod
    def from_toml(cls, path: str | Path, **options: Any) -> Config:
        """The options of a TOML file, under those that are given here; dashes and underscores are one."""
        return cls.of({**read_toml(Path(path)), **options})

    def replace(self, **changes: Any) -> Config:
        """The same given options but for the changes. Presets apply again, where nothing was given."""
        kept = {name: getattr(self, name) for name in self.given}
        return Config.of({**kept, **changes})

    def options(self) -> dict[str, Any]:
        """All resolved values by name, as run.json keeps them, with absolute paths of data and root."""
        values = {name: getattr(self, name) for name in OPTIONS}
        return values | {"data": absolute("data", self.data), "root": absolute("root", self.root)}

    def with_absolute_paths(self) -> Config:
        """The same configuration, with every path spelt so that it does not depend on where one is."""
        spelt = {name: absolute(name, getattr(self, name)) for name in PATHS}
        return self.replace(**{name: path for name, path in spelt.items() if path != getattr(self, name)})

    def check(self) -> None:
        """Raise InputError for the first options that do not go together."""
        regime = REGIMES[self.regime]
        if self.human_budget == AUTO and not regime.can_be_tried:
            raise InputError(
                f"--human-budget auto: regime {self.regime!r} has no model to try before it takes over; "
                f"expected one of {', '.join(those_that('can_be_tried'))}, or a share"
            )
        if self.generator is not None and not regime.takes_a_generator:
            raise InputError(
                f"--generator {self.generator}: regime {self.regime!r} asks none; expected one of "
                f"{', '.join(those_that('takes_a_generator'))}"
            )
        if self.segmenter_weights is not None and not (regime.uses_a_segmenter and self.generator is None):
            raise InputError(
                "--segmenter-weights goes with --regime segmenter, and without --generator: leave one out"
            )
        if regime.uses_a_segmenter and self.segmenter_masks is None:
            raise InputError(
                f"regime {self.regime!r} needs --segmenter-masks FOLDER with <id>.png for every training "
                f"image; with --segmenter-weights or --generator those that are missing are made there"
            )

    def plan(self, pool: int) -> Plan:
        """The rounds for a training pool of `pool` images; raises InputError for fractions that cannot be."""
        return plan(pool, self.start_fraction, self.query_fraction, self.stop_fraction, self.human_budget)

    @property
    def run_folder(self) -> Path:
        """`out`, or the folder that is named after data, regime, criterion and seed."""
        if self.out is not None:
            return Path(os.path.expanduser(self.out))
        name = f"{short_name(self.data)}-{self.regime}-{short_name(self.criterion)}-s{self.seed}"
        return Path("runs") / name

    @property
    def its_regime(self) -> Regime:
        """The regime's properties."""
        return REGIMES[self.regime]

    @property
    def its_alpha(self) -> float:
        """Alpha of the accuracy model: the one that was given, else the regime's."""
        return self.its_regime.alpha if self.alpha is None else self.alpha


OPTIONS = options_of(Config)
TYPES = types_of(Config)
PATHS = tuple(name for name, one in OPTIONS.items() if one.path or one.plugin)


def absolute(name: str, value: str | None) -> str | None:
    """The value of an option that may be a path, as an absolute path if it is one."""
    one = OPTIONS[name]
    if value is None or value in one.words:
        return value
    place, _, rest = value.rpartition(":") if plugins.is_reference(value) else (value, "", "")
    named = bool(rest) and not place.endswith(".py")  # package.module:object
    if named or (one.path == "by suffix" and Path(place).suffix not in WEIGHTS):
        return value
    path = str(Path(os.path.expanduser(place)).resolve())
    return f"{path}:{rest}" if rest else path


def short_name(spec: str) -> str:
    """A data set, manifest or plug-in as a part of a folder's name."""
    if plugins.is_reference(spec):
        return spec.rpartition(":")[2]
    path = Path(os.path.expanduser(spec)).resolve()
    return path.stem if path.suffix.lower() in (".csv", ".parquet") else path.name


def read_toml(path: Path) -> dict[str, Any]:
    """The options of a TOML file; dashes and underscores are one."""
    try:
        values = tomllib.loads(Path(os.path.expanduser(path)).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"--config: file not found: {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"--config: {path} is not TOML: {error}") from None
    return {name.replace("-", "_"): value for name, value in values.items()}
