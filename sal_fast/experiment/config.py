"""All options of a run in one dataclass, which is filled from Python, the command line or a TOML file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sal_fast import plugins
from sal_fast._util.suggest import suggest
from sal_fast._util.words import (
    AUGMENTS,
    CAM_CLASSES,
    DECODERS,
    KEEPS,
    OPTIMIZERS,
    PRECISIONS,
    PROBES,
    SALIENCY_KINDS,
    SCHEDULES,
    TRAINS,
    CamClass,
    DecoderName,
    Keep,
    Optimizer,
    Precision,
    Probe,
    SaliencyKind,
    Schedule,
    Train,
)
from sal_fast.errors import InputError
from sal_fast.experiment import presets
from sal_fast.experiment.budget import AUTO, Plan, Stage, fractions, plan
from sal_fast.experiment.options import UNSET, check_value, option, options_of, spelling, types_of
from sal_fast.experiment.regimes import REGIMES, Regime, those_that

if TYPE_CHECKING:
    from sal_fast.data.meaning import Rule
    from sal_fast.data.readers import Options as ReadOptions

WEIGHTS = (".safetensors", ".pth", ".pt")  # the suffixes of weights files


@dataclass(frozen=True)
class Config:
    """The options of one run of the paper's experiment (SAL, Algorithm 1).

    Every argument is optional, and an instance knows which ones were given: `given`. The others take the
    value of the preset, or the default if the preset has none. With `preset="auto"` the preset is the data
    set's own, or the schedule of the public CYBORG code for a data set without one. Reading an attribute
    always gives the resolved value. `sal-fast run --help` explains each option.

    Raises InputError if a value has another type, is not one of the option's words, or is out of bounds.
    """

    data: str = option("builtin", affects="data", plugin="data", any_text=True, path="always", axis=True)
    """The images. They are the built-in set (builtin), a folder with images/<class>/ and masks/<class>/, a
    manifest, a file or folder in another of the formats that docs/data.md lists, a folder that `sal-fast data
    prepare` made, or a plug-in, file.py:object. With --root they can be cub200, flowers102, imagenet-s,
    ham10000 or food201."""
    root: str | None = option(None, affects="data", path="always")
    """The folder that holds the official archives of --data, unpacked or not."""
    format: str = option("auto", affects="data", choices=("auto",), plugin="reader")
    """The format of --data, such as coco or labelme. auto takes the one that the files look like."""
    columns: str = option("", affects="data")
    """The columns or fields of a manifest, a Parquet, an array or an annotation file that stand for ours,
    such as image=filename. Ours are id, image, label, mask, split, group (images that no split parts, such
    as a patient's) and subgroup (whose figures are told apart)."""
    foreground: str | None = option(None, affects="data")
    """The values of mask files that are foreground, such as 1,2 or 1-5, where a file has more values than 0
    and one other. grades says that they are degrees of grey."""
    ignore: str | None = option(None, affects="data")
    """The values of mask files that are neither foreground nor background, such as 255. They become
    background."""
    foreground_colour: str | None = option(None, affects="data")
    """The colours of mask files that are foreground, such as 255,0,0 or #ff0000, divided by semicolons."""
    white: float | None = option(None, affects="data", above=0)
    """The number that is white in images and masks of more than 8 bits, such as 4095 for 12 bits. Without it
    65535 is white for 16 bits, and 1 for fractions."""
    allow_leaks: bool = option(False, affects="")
    """Go on although a picture, or a copy of it, is in more than one split or class, or a group in more than
    one split. Without it such data are refused, except the paper's data sets, for which it is only told."""
    add_data: bool = option(
        False, affects="", not_in_a_grid="let the runs that are to grow go on by themselves"
    )
    """Let images that have come into --data since the run began join its training pool, when the run goes on.
    From the next query on, the fractions are shares of the larger pool. Val and test stay as they are."""
    regime: str = option("sal", affects="maps network", choices=tuple(REGIMES), axis=True)
    """The rule that says which saliency maps are used, and who draws them (paper Sec. 5)."""
    criterion: str = option("margin", affects="query", plugin="criterion", compared=True, axis=True)
    """The rule that chooses the images to label (paper App. A.1), or a plug-in, file.py:function."""
    probe: Probe = option("cam", affects="network training", choices=PROBES, compared=True, axis=True)
    """The kind of saliency map that is used in training, for generated maps and in testing (paper App. H)."""
    cam_layer: str = option("features", affects="network training")
    """The layer that saliency maps are made of. features is the layer that is pooled. conv3 is a ResNet-50's
    last convolution before its batch norm, as in the public CYBORG code. A module's dotted name, such as
    layer3 or layer4.1.conv2, is any other layer."""
    cam_class: CamClass = option("labelled", affects="training", choices=CAM_CLASSES)
    """The class whose map is compared in training and drawn for a query. Testing always takes the predicted
    class."""
    arch: str = option(
        "resnet50", affects="network training", plugin="network", any_text=True, compared=True, axis=True
    )
    """The network: any classification network of torchvision or timm by its name there, such as
    convnext_tiny or vit_small_patch14_dinov2.lvd142m; hf-hub:NAME; a folder with timm's config.json; or a
    plug-in, file.py:function. Those of timm need pip install "sal-fast[timm]"."""
    weights: str = option("none", affects="network training", path="by suffix", settled=True)
    """The initial weights: none (random ones), the name of torchvision's weights (of timm's for xception), or
    a .safetensors, .pth, .pt, .ckpt or .bin file. Prefixes that wrappers add to names are taken off. auto
    takes the network's DEFAULT weights if they are on this machine or can be downloaded, else none."""
    offline: bool = option(False, affects="")
    """Download no weights. Only files and what an earlier download left on this machine are taken."""
    teacher_arch: str = option(
        "same",
        affects="maps network",
        choices=("same",),
        plugin="network",
        any_text=True,
        only="has_teacher",
    )
    """The teacher's network in the regime tait. same takes that of --arch; the paper takes xception."""
    teacher_weights: str = option(
        "same", affects="maps network", path="by suffix", only="has_teacher", settled=True
    )
    """The teacher's initial weights: none, auto, a name or a file. same takes those of --weights, but if that
    is a file and the teacher is another network, it takes none."""
    train: Train = option("all", affects="network training", choices=TRAINS, compared=True, axis=True)
    """What is trained: the whole network (all), or its head alone (head). With head the network looks at each
    image once, and training, testing and queries read the features that are kept of it. A round then takes
    seconds."""
    crops: int = option(0, affects="training", least=0)
    """With --train head, the number of crops of each training image whose features are kept, drawn as
    --augment says. With 0 the features are those of the whole image."""
    output_stride: int = option(32, affects="network training", least=1)
    """Pixels for each feature. With 16, 8 or 4 small images keep more features (ResNets only)."""
    image_size: int = option(224, affects="network training", least=1)
    """The side in pixels of the network's input. It is also the side of the frame, in which maps are kept and
    Dice is measured."""
    map_size: int | None = option(None, affects="network training", least=3)
    """The side in pixels at which CAM and map are compared. Without it they are compared at the resolution of
    the features."""
    saliency_loss: SaliencyKind = option("ssim_l1", affects="training", choices=SALIENCY_KINDS)
    """The distance of CAM and map (paper Eq. 1). mse is what the public CYBORG code computes."""
    alpha: float | None = option(None, affects="maps", axis=True, least=0, most=1)
    """The weight of classification in the accuracy model's loss (paper Eq. 1). Without it the regime's own
    weight is taken."""
    augment: str = option("none", affects="training", choices=AUGMENTS, joined=True, plugin="augmentation")
    """How training images are varied, the same for image and map. none varies nothing. standard takes a
    random resized crop and a flip. The other words do so, too, and can be joined, as in color+vflip. color
    changes brightness, contrast and saturation, vflip flips top to bottom, turn rotates by quarter turns, and
    rotate by up to 15 degrees. A plug-in is file.py:function."""
    decoder: DecoderName = option("auto", affects="", choices=DECODERS)
    """The library that decodes images: dali, torch (torchvision) or pillow. auto takes dali on a GPU if it
    is installed, else torch."""
    store: Keep = option("auto", affects="", choices=KEEPS)
    """The place of decoded images. resident keeps them on the device, stream reads and decodes them in each
    epoch. auto keeps them if they take at most half of the free memory."""
    epochs: int = option(50, affects="training", least=1)
    """The number of epochs that each model is trained for."""
    batch_size: int = option(20, affects="training network", least=1)
    """The number of images in a training step."""
    lr: float = option(0.005, affects="training", above=0)
    """The highest learning rate, which --warmup leads to and --schedule leads down from."""
    head_lr: float | None = option(None, affects="training", above=0)
    """The learning rate of the head, the last layer. Without it the head has that of --lr."""
    optimizer: Optimizer = option("sgd", affects="training", choices=OPTIMIZERS)
    """The optimizer: sgd, with momentum 0.9, or adamw."""
    weight_decay: float = option(1e-6, affects="training", least=0)
    """The weight decay of the optimizer. With adamw it leaves out biases and the parameters of norms."""
    schedule: Schedule = option("step", affects="training", choices=SCHEDULES)
    """How the learning rate falls: step, to a tenth after every --lr-step epochs, or cosine, along half a
    cosine to nearly 0 in the last epoch."""
    lr_step: int = option(12, affects="training", least=1)
    """The number of epochs after which the learning rate falls to a tenth, each time (--schedule step)."""
    warmup: int = option(0, affects="training", least=0)
    """The number of epochs in which the learning rate first rises, by equal steps."""
    label_smoothing: float = option(0.0, affects="training", least=0, most=1)
    """The share of each label that is spread evenly over all classes in the loss."""
    class_weights: str = option(
        "none", affects="training", choices=("none", "balanced"), any_text=True, path="digest"
    )
    """The weights of the classes in the loss: none (1 each), balanced (all classes count alike in each round,
    however many images they have), or a .toml or .csv file with the weight of each class."""
    val_every: int | Literal["auto"] = option(1, affects="training", least=1)
    """Validate after every so many epochs, and after the last. The best of these epochs is kept. With auto
    validation is no dearer than training."""
    start_by: str = option(
        "stratified",
        affects="query",
        choices=("stratified",),
        plugin="criterion",
        any_text=True,
        compared=True,
        axis=True,
    )
    """The rule that chooses the images that are labelled at the start. stratified takes each class in
    proportion, and needs the classes of the data set. random, kmeans, typiclust, core-set or a plug-in read
    the features of the untrained network, so that pretrained weights decide what they are worth. A .txt file
    names the images, one id a line."""
    start_fraction: float | Literal["auto"] = option(0.05, affects="rounds", settled=True)
    """The share of the training pool that is labelled at the start. auto takes 0.05, but at least ten
    images."""
    query_fraction: float | Literal["auto"] = option(0.05, affects="rounds", settled=True)
    """The share of the training pool that each query asks for. auto takes 0.05, but at least ten images."""
    stop_fraction: float | Literal["auto"] = option(1.0, affects="rounds", grows=True)
    """The share of the training pool that is labelled when the run ends. With auto it ends once predictions
    on the pool are stable, and labelling the rest is expected to gain at most 0.01 of accuracy. A run, even
    a finished one, can go on with a larger share."""
    human_budget: float | Literal["auto"] = option(
        0.2, affects="maps rounds", only="uses_the_budget", axis=True, grows=True
    )
    """The share of the training pool that gets maps from people. With auto the model takes over once its
    predictions of what people draw stop getting better (regimes sal and sal-single). A run can go on with a
    larger share, which holds for the queries to come."""
    annotator: Literal["data", "people"] = option(
        "data",
        affects="maps",
        choices=("data", "people"),
        not_in_a_grid="a sweep does not wait for people; start such a run by itself",
    )
    """The one who answers queries. data takes the data set's own labels and masks. people asks real people:
    see `sal-fast query`. The run then ends with status 75 whenever it has to wait for them."""
    own_masks: Literal["auto", "use", "ask"] = option(
        AUTO,
        affects="maps",
        choices=(AUTO, "use", "ask"),
        settled=True,
        not_in_a_grid="it goes with --annotator people, and a sweep does not wait for people",
    )
    """With --annotator people, what is done with masks that the training images have already. use takes them
    as maps that people drew: people give the class of these images only, and --start-by stratified prefers
    images with a mask. ask has people draw a map of these images, too. auto is use, but ask for a run that
    began before there was this option."""
    generator: str | None = option(None, affects="maps", plugin="generator", only="takes_a_generator")
    """A plug-in, file.py:function, that draws maps in the interpretability model's place (regime sal), or
    the missing masks of the regime segmenter. See docs/generators.md."""
    segmenter_masks: str | None = option(None, affects="maps", path="always", only="uses_a_segmenter")
    """The folder that holds <id>.png for each training image, for the regime segmenter. With
    --segmenter-weights or --generator the missing ones are made there."""
    segmenter_weights: str | None = option(None, affects="maps", path="always", only="uses_a_segmenter")
    """A checkpoint of Segment Anything, for the regime segmenter."""
    control_maps: str = option(
        "none",
        affects="training",
        choices=("none", "shuffled", "inverted", "random", "centre"),
        only="uses_human_maps",
        axis=True,
    )
    """The maps that training gets in the place of people's, to see what people's maps are worth. none
    replaces nothing. shuffled gives each training image the map of another one. inverted swaps black and
    white in each map. random puts the pixels of each map into a random order. centre makes a disc in the
    middle of them. Maps of test images are never replaced."""
    baseline: str = option(
        AUTO,
        affects="",
        choices=(AUTO, "none", "b1"),
        settled=True,
        not_in_a_grid="list b1 among the regimes, and random among the criteria, instead",
    )
    """The models that are trained after the last round for comparison. b1, or --baseline alone, trains regime
    b1 on the same images, and on images drawn at random; the report then opens with what saliency and the
    criterion gained. none trains nothing more. auto is b1 for the built-in set if --out is not given."""
    warm_start: bool = option(False, affects="training")
    """Train each round from the last round's weights instead of the initial ones."""
    seed: int = option(0, affects="seed", axis=True, least=0, most=2**63 - 1)
    """The seed that every random draw follows from."""
    device: str = option("auto", affects="machine")
    """The device: auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    precision: Precision = option("auto", affects="training network", choices=PRECISIONS)
    """The precision of the network's products: float32 or bfloat16. auto takes bfloat16 on a GPU that has
    it, else float32."""
    compile: bool = option(False, affects="training network")
    """Run the networks through torch.compile; on a GPU they run as CUDA graphs."""
    data_parallel: bool = option(False, affects="machine")
    """Let all processes under torchrun train each model together, each on a part of every batch. Without it
    each process trains one model."""
    deterministic: bool = option(False, affects="machine")
    """Refuse operations that do not repeat bit by bit on a GPU. With --data-parallel each batch is cut into
    --shards parts, so that the number of processes changes nothing."""
    shards: int = option(6, affects="training", least=1)
    """The parts of a batch with --data-parallel --deterministic. Each has its own batch statistics."""
    tracker: str = option(
        "table",
        affects="",
        joined=True,
        plugin="tracker",
        not_in_a_grid="a sweep shows its runs itself",
    )
    """The plug-ins that are told of every finished round: table, log, csv, tensorboard, wandb or mlflow,
    several of them joined by +, as in table+csv; or file.py:function."""
    preset: str = option(presets.AUTO, affects="", choices=(presets.AUTO, *presets.PRESETS))
    """The values that options have if they are not given. auto takes the data set's own preset, or own for
    data of your own. cyborg is the public CYBORG code's. own is that with pretrained weights where they can
    be had, and queries of at least ten images. finetune is for a pretrained network. frozen is for its head
    alone."""
    out: str | None = option(
        None,
        affects="",
        not_in_a_grid="the sweep's --out names the folder, and each run gets one of its own in it",
    )
    """The run folder. Without it the folder is runs/<data>-<regime>-<criterion>-s<seed>."""
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
        """The names of the options that were given. The others have the preset's value or the default."""
        names: frozenset[str] = self.__dict__["_given"]
        return names

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Config:
        """Make a configuration from options by name. For an unknown one, InputError suggests the nearest."""
        for name in options:
            if name not in OPTIONS:
                raise InputError(f"unknown option {name!r}{suggest(name, OPTIONS)}")
        return cls(**options)

    @classmethod
    def from_toml(cls, path: str | Path, **options: Any) -> Config:
        """Read the options of a TOML file. `options` override them; dashes and underscores are the same."""
        return cls.of({**read_toml(Path(path)), **options})

    def replace(self, **changes: Any) -> Config:
        """A copy with other values of some options. Presets apply again to options that are not given."""
        kept = {name: getattr(self, name) for name in self.given}
        return Config.of({**kept, **changes})

    def options(self) -> dict[str, Any]:
        """All resolved values by name, as run.json keeps them. The paths of data and root are absolute."""
        values = {name: getattr(self, name) for name in OPTIONS}
        return values | {"data": absolute("data", self.data), "root": absolute("root", self.root)}

    def with_absolute_paths(self) -> Config:
        """The same configuration with absolute paths, so that it does not depend on the working directory."""
        spelt = {name: absolute(name, getattr(self, name)) for name in PATHS}
        return self.replace(**{name: path for name, path in spelt.items() if path != getattr(self, name)})

    def check(self) -> None:
        """Raise InputError for the first options that cannot be combined."""
        regime = REGIMES[self.regime]
        if "none" in self.augment.split("+")[1:] or self.augment.startswith("none+"):
            raise InputError(f"--augment {self.augment}: none goes with no other word; leave it out")
        if self.warmup >= self.epochs:
            raise InputError(f"--warmup {self.warmup}: expected less than --epochs, which is {self.epochs}")
        if self.human_budget == AUTO and not regime.can_be_tried:
            raise InputError(
                f"--human-budget auto: regime {self.regime!r} has no model to try before it takes over; "
                f"expected one of {', '.join(those_that('can_be_tried'))}, or a share"
            )
        if self.generator is not None and not regime.takes_a_generator:
            raise InputError(
                f"--generator {self.generator}: regime {self.regime!r} takes no generator; expected one of "
                f"{', '.join(those_that('takes_a_generator'))}"
            )
        self._check_head()
        self._check_controls()
        if self.segmenter_weights is not None and not (regime.uses_a_segmenter and self.generator is None):
            raise InputError(
                "--segmenter-weights goes with --regime segmenter, and without --generator: leave one out"
            )
        if regime.uses_a_segmenter and self.segmenter_masks is None:
            raise InputError(
                f"regime {self.regime!r} needs --segmenter-masks FOLDER with <id>.png for every training "
                f"image; with --segmenter-weights or --generator those that are missing are made there"
            )

    def _check_controls(self) -> None:
        """Refuse control maps where no map of people is there to be replaced, and a baseline of itself."""
        if self.control_maps != "none" and not self.its_regime.uses_human_maps:
            raise InputError(
                f"--control-maps {self.control_maps}: regime {self.regime!r} uses no maps of people that "
                f"could be replaced; expected one of {', '.join(those_that('uses_human_maps'))}"
            )
        if self.own_masks != AUTO and self.annotator == "data":
            raise InputError(
                f"--own-masks {self.own_masks} goes with --annotator people; without it masks of the data "
                f"always stand for people's maps, so leave it out"
            )
        if self.control_maps != "none" and self.annotator == "people":
            raise InputError(
                f"--control-maps {self.control_maps} replaces maps that are there before the run, and "
                f"--annotator people draws them while it runs; leave one of them out"
            )
        if self.baseline == "b1" and self.warm_start:
            raise InputError(
                "--baseline b1 trains from the initial weights, and --warm-start goes on from the last "
                "round's; leave one of them out, or make another run with --regime b1"
            )
        if self.baseline == "b1" and not self.can_have_a_baseline:
            raise InputError(
                f"--baseline b1: regime {self.regime!r} with criterion {self.criterion!r} is the baseline "
                f"itself; leave --baseline out"
            )

    def _check_head(self) -> None:
        """Refuse what does not go together with --train head, and what goes with it alone."""
        if self.train == "all":
            if self.crops:
                raise InputError(f"--crops {self.crops} goes with --train head; leave it out")
            return
        for name, refused, why in (
            ("cam_layer", self.cam_layer != "features", "only the pooled features are kept"),
            ("compile", self.compile, "the network runs once for each image"),
            ("data_parallel", self.data_parallel, "each process trains one head"),
        ):
            if refused:
                raise InputError(f"{spelling(name)} does not go with --train head: {why}; leave it out")
        if plugins.is_reference(self.augment):
            raise InputError(
                f"--augment {self.augment}: --train head takes no plug-in; expected words, such as standard"
            )
        if (self.augment != "none") != (self.crops > 0):
            raise InputError(
                f"--train head keeps the features of --crops {self.crops} crops with --augment "
                f"{self.augment}; expected --augment none without --crops, or another --augment and "
                f"--crops 1 or more"
            )

    def plan(self, pool: int, earlier: Sequence[Stage] = ()) -> Plan:
        """The rounds for a training pool of `pool` images. Raises InputError for impossible fractions.

        `earlier` has the stages of a run that has grown (`growing.earlier`).
        """
        start, query = self.fractions(pool)
        return plan(pool, start, query, self.stop_fraction, self.human_budget, earlier)

    def fractions(self, pool: int) -> tuple[float, float]:
        """The shares that the start set and a query have of a training pool of `pool` images."""
        return fractions(pool, self.start_fraction, self.query_fraction, self.stop_fraction)

    @property
    def run_folder(self) -> Path:
        """The run folder: `out`, or one that is named after data, regime, criterion and seed."""
        if self.out is not None:
            return Path(os.path.expanduser(self.out))
        control = "" if self.control_maps == "none" else f"-{self.control_maps}"
        name = f"{short_name(self.data)}-{self.regime}{control}-{short_name(self.criterion)}-s{self.seed}"
        return Path("runs") / name

    @property
    def its_regime(self) -> Regime:
        """The properties of the regime."""
        return REGIMES[self.regime]

    @property
    def uses_own_masks(self) -> bool:
        """True if people are not asked for the maps of images that have masks. `auto` has to be settled."""
        return self.annotator == "people" and self.own_masks == "use"

    @property
    def can_have_a_baseline(self) -> bool:
        """True if b1 on images drawn at random differs from this run, in its maps or in its images."""
        differs = self.its_regime.uses_maps or self.criterion != "random"
        return differs and not self.warm_start

    @property
    def its_rule(self) -> Rule:
        """How mask files are read. Raises InputError for options that are no numbers."""
        from sal_fast.data.meaning import Rule  # it imports torch, and this module is imported everywhere

        return Rule.of(self.foreground, self.ignore, self.foreground_colour, self.white)

    @property
    def its_format(self) -> ReadOptions:
        """How the files of --data are read. Raises InputError for columns that are no pairs of names."""
        from sal_fast.data.readers import Options  # it imports torch, too

        return Options.of(self.format, self.columns)

    @property
    def its_alpha(self) -> float:
        """The accuracy model's alpha: the one that was given, else the regime's."""
        return self.its_regime.alpha if self.alpha is None else self.alpha


OPTIONS = options_of(Config)
TYPES = types_of(Config)
PATHS = tuple(name for name, one in OPTIONS.items() if one.path or one.plugin)


def absolute(name: str, value: str | None) -> str | None:
    """The value of an option that may be a path, as an absolute path if it is one."""
    one = OPTIONS[name]
    if value is None or value in one.words or (one.joined and not plugins.is_reference(value)):
        return value
    place, _, rest = value.rpartition(":") if plugins.is_reference(value) else (value, "", "")
    named = bool(rest) and not place.endswith(".py")  # it is package.module:object
    known = one.plugin == "network" and not rest and not Path(os.path.expanduser(place)).is_dir()
    if named or known or (one.path == "by suffix" and Path(place).suffix not in WEIGHTS):
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
    """The options of a TOML file. Dashes and underscores in their names are the same."""
    try:
        values = tomllib.loads(Path(os.path.expanduser(path)).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"--config: file not found: {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"--config: {path} is not TOML: {error}") from None
    return {name.replace("-", "_"): value for name, value in values.items()}
