"""What a weights file tells of its model, so that nobody has to say it again.

A run writes these entries as JSON into the header of its .safetensors files:

    classes           the names of the classes, in the order of the model's outputs
    network           what --arch takes; the path of a plug-in is absolute
    image_size        pixels a side of what the network sees
    stored_size       pixels a side that an image is resized to first, and from there to image_size
    output_stride     pixels for each feature
    normalisation     mean and std of red, green and blue in 0 to 1, as the network wants them
    cam_layer, probe  the layer and the kind of its saliency maps
    train             `all`, or `head` if only the head was trained, on the mean of the features
    white             the number that is white in images of more than 8 bits; null if nobody said it
    run, round        the name of the run's folder, and the number of the round
    version           the version of sal-fast that began the run
    data              the name and the fingerprint of the data set, and its images in train, val and test
    counts            labelled images, and maps by origin
    setting           the run's regime, criterion, seed, initial weights and control maps
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sal_fast._util.words import MEAN, STD
from sal_fast.data.augment import stored_size
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config, absolute
from sal_fast.experiment.networks import teacher_arch
from sal_fast.models import weights

FORMAT = 1
FOLDER, FILE = "model", "model.safetensors"  # of a run's folder, and in it
NEEDED = (
    "classes", "network", "image_size", "stored_size", "output_stride", "normalisation", "cam_layer", "probe",
    "train", "white", "run", "round", "version",
)  # fmt: skip
COUNTS = ("labelled", "human_maps", "generated_maps", "empty_maps")
OPTIONS = {"network": "--arch", "image_size": "--image-size", "output_stride": "--output-stride"}


def of_run(
    record: Mapping[str, Any], config: Config, round_index: int, counts: Mapping[str, Any]
) -> dict[str, Any]:
    """The entries for the accuracy model of a round.

    Args:
        record: the content of run.json.
        config: the options of the run, with a value for each `auto`.
        round_index: the number of the round.
        counts: they have the entries `COUNTS`, as the line of the round has them.
    """
    environment, data = record["environment"], record["data"]
    mean, std = environment.get("normalisation", {}).get(config.arch, (MEAN, STD))
    initial = Path(config.weights).name if weights.is_file(config.weights) else config.weights
    return {
        "format": FORMAT,
        "classes": list(data["classes"]),
        "network": absolute("arch", config.arch),
        "image_size": config.image_size,
        "stored_size": stored_size(config.augment, config.image_size),
        "output_stride": config.output_stride,
        "normalisation": {"mean": list(mean), "std": list(std)},
        "cam_layer": config.cam_layer,
        "probe": config.probe,
        "train": config.train,
        "white": config.white,
        "run": config.run_folder.resolve().name,
        "round": round_index,
        "version": environment.get("sal_fast", "unknown"),
        "data": {
            "name": data["name"],
            "fingerprint": data["fingerprint"],
            **{split: len(record["splits"][split]) for split in ("train", "val", "test")},
        },
        "counts": {name: int(counts[name]) for name in COUNTS},
        "setting": {
            "regime": config.regime,
            "criterion": config.criterion,
            "seed": config.seed,
            "weights": initial,
            "control_maps": config.control_maps,
        },
    }


def find(path: Path) -> Path:
    """The weights file that a path names: it is the file, a folder with the file, or the folder of a run.

    Raises InputError if there is none.
    """
    for file in (path / FOLDER / FILE, path / FILE, path):
        if file.is_file():
            return file
    if (path / "run.json").is_file():
        raise InputError(
            f"{path}: there is no {FOLDER}/{FILE} in this run yet; `sal-fast run --resume {path}` writes it "
            f"if a round is finished"
        )
    raise InputError(f"{path}: no model found; expected a run's folder, its folder {FOLDER}, or {FILE}")


def read(path: Path) -> dict[str, Any]:
    """The entries of a weights file. Raises InputError for a file without them."""
    about = weights.metadata(path)
    if about is None:
        raise InputError(
            f"{path}: it does not say which network, classes and image size its weights are for; expected a "
            f"run's folder, or a .safetensors file that a run has written"
        )
    if about.get("format") != FORMAT or any(name not in about for name in NEEDED):
        raise InputError(
            f"{path}: its metadata have the format {about.get('format')!r}, expected {FORMAT} with "
            f"{', '.join(NEEDED)}; update sal-fast, or repeat the run"
        )
    return about


def check(path: Path, about: Mapping[str, Any], given: Mapping[str, Any], **spelt: str) -> None:
    """Raise InputError for the first option that contradicts what a weights file says of itself.

    Args:
        path: the file, for the message.
        about: its entries.
        given: values of `network`, `image_size` and `output_stride`; None if the user gave none.
        spelt: how an option is called, if not as in `OPTIONS`.
    """
    for name, value in given.items():
        own = absolute("arch", value) if name == "network" and value is not None else value
        if own is not None and own != about[name]:
            raise InputError(
                f"{spelt.get(name, OPTIONS[name])} {value} contradicts {path}, whose weights were trained "
                f"with {about[name]}; leave the option out, or take other weights"
            )


def like_its_weights(config: Config) -> Config:
    """The options of a run that starts from a trained model, whose network, size and stride it takes over.

    `weights` and `teacher_weights` may also name the folder of a run or of a model, for which the file is put
    in. A file that no run has written changes nothing. Raises InputError if an option that was given
    contradicts what the file says.
    """
    file, about = _of_option(config.weights)
    if about is not None:
        assert file is not None
        given = {"network": "arch", "image_size": "image_size", "output_stride": "output_stride"}
        asked = {name: getattr(config, option) for name, option in given.items() if option in config.given}
        check(file, about, asked)
        taken = {option: about[name] for name, option in given.items() if name not in asked}
        config = config.replace(weights=str(file), **taken)
    file, about = _of_option(config.teacher_weights)
    if about is not None and config.its_regime.has_teacher:
        assert file is not None
        check(file, about, {"network": teacher_arch(config)}, network="--teacher-arch")
        check(file, about, {"image_size": config.image_size})
        config = config.replace(teacher_weights=str(file))
    return config


def _of_option(value: str) -> tuple[Path | None, dict[str, Any] | None]:
    """The file that --weights names, None if it names none, and its entries, None if no run wrote it."""
    path = Path(os.path.expanduser(value))
    is_model = any((path / one).is_file() for one in (FILE, f"{FOLDER}/{FILE}"))
    if not (is_model or (weights.is_file(value) and path.exists())):
        return None, None  # whoever reads the weights says what is wrong
    file = find(path)
    return file, None if weights.metadata(file) is None else read(file)
