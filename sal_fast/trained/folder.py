"""The folder RUN/model: the weights that a run has now, with all that is needed to use them, and a card."""

import os
from pathlib import Path
from typing import Any

from torch import Tensor

from sal_fast._util.files import read_json, whole_file, write_bytes
from sal_fast.errors import InputError
from sal_fast.experiment.networks import whole_model
from sal_fast.experiment.record import RunFolder
from sal_fast.models import weights
from sal_fast.trained import card, metadata
from sal_fast.trained.metadata import FILE, FOLDER


def write(run: RunFolder) -> None:
    """Bring RUN/model up to the last finished round; nothing is done if it is.

    Its files are made of those of the run alone, each whole or not at all. So whatever a killed process has
    left out, the next call makes. Nothing is written for a run without a finished round, or one whose last
    weights are gone. The caller holds the run's lock.
    """
    lines = run.rounds()
    if not lines or not _source(run, lines[-1]).is_file():
        return
    about, place = _about(run, lines[-1]), run.path / FOLDER
    if _said(place / FILE) != about:
        _put(run, about, _source(run, lines[-1]), place / FILE)
    summary = read_json(run.summary_json) if run.summary_json.exists() else None
    text = card.text(about, lines[-1], summary).encode()
    if not (place / card.FILE).is_file() or (place / card.FILE).read_bytes() != text:
        write_bytes(place / card.FILE, text)


def last(run: RunFolder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what is known of the model of the last finished round, and its weights.

    They are those of RUN/model if it is there, else of the round. Raises InputError if no round is finished,
    or if the weights are gone.
    """
    lines = run.rounds(mend=False)
    if not lines:
        raise InputError(f"{run.path}: no finished round yet, so there is no model; let a round finish")
    about = _about(run, lines[-1])
    kept = _said(run.path / FOLDER / FILE)
    if kept is not None and kept.get("round") == about["round"]:
        # The run names a plug-in as it was typed; the file has its absolute path.
        about["network"] = kept.get("network", about["network"])
        return about, weights.read(run.path / FOLDER / FILE)
    source = _source(run, lines[-1])
    if not source.is_file():
        raise InputError(f"{source}: the model's weights are gone; restore them, or repeat the run")
    return about, _whole(run, about, source)


def opened(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """Read a model: the entries of its metadata, its weights, and the file or the run that holds them.

    path: the folder of a run, finished or not; its folder `model`, or a copy of it; or a .safetensors file
    that a run has written. Raises InputError if there is no model, or if its files are damaged.
    """
    if (path / "run.json").is_file():
        return *last(RunFolder(path)), path
    file = metadata.find(path)
    return metadata.read(file), weights.read(file), file


def _about(run: RunFolder, line: dict[str, Any]) -> dict[str, Any]:
    return metadata.of_run(run.run(), run.config(), line["round"], line)


def _source(run: RunFolder, line: dict[str, Any]) -> Path:
    return run.round(line["round"]) / "accuracy.safetensors"


def _said(file: Path) -> dict[str, Any] | None:
    """Read what a weights file says of itself; None if it is not there, or says nothing that can be read."""
    try:
        return weights.metadata(file)
    except InputError:
        return None


def _put(run: RunFolder, about: dict[str, Any], source: Path, target: Path) -> None:
    """Make `target` hold the whole model.

    It is one file with `source` if that says the same, and the file system has hard links. It is written if
    `source` holds the head alone, or comes from another run or from an older version.
    """
    with whole_file(target) as aside:
        aside.unlink(missing_ok=True)
        if about["train"] == "all" and _said(source) == about:
            try:
                os.link(source, aside)
                return
            except OSError:
                pass
        aside.write_bytes(weights.to_bytes(_whole(run, about, source), about))


def _whole(run: RunFolder, about: dict[str, Any], source: Path) -> dict[str, Tensor]:
    """The weights of the whole network by their own names.

    With `--train head` the round keeps the head alone, whose names here are those of the network's own head.
    """
    state = weights.read(source)
    if about["train"] == "all":
        return state
    body = whole_model(run.config(), len(about["classes"]))
    head = f"{body.backbone.head_name(body.net)}."
    rest = {name: value for name, value in body.net.state_dict().items() if not name.startswith(head)}
    return rest | {head + name.removeprefix("head."): value for name, value in state.items()}
