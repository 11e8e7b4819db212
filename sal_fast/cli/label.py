"""sal-fast label: people label and draw in a browser, and the run goes on by itself."""

import argparse
import os
import signal
import socket
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sal_fast._util.locks import locked
from sal_fast.cli import parsing
from sal_fast.cli.output import say
from sal_fast.cli.run import parse, with_values
from sal_fast.errors import InputError
from sal_fast.experiment.answers import people
from sal_fast.experiment.config import OPTIONS
from sal_fast.experiment.options import UNSET, spelling
from sal_fast.experiment.record import PEOPLE, RunFolder
from sal_fast.people.page import first
from sal_fast.people.page.desk import Ask

PORT = 8422
GROWS = ("add_data", *(name for name, one in OPTIONS.items() if one.grows))  # options that let a run grow
EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, kw_only=True)
class Label:
    """Label and draw in a browser. Rounds in between run by themselves, and the page asks the next question.

    RUN is the folder of a run with --annotator people, or a folder of images, from which a run is made. With
    a folder of images all options of `sal-fast run` are taken, too, such as --arch resnet18. With a run its
    --add-data, --stop-fraction and --human-budget are taken, which let it grow. If no image has a class yet,
    people first give the classes of some images, on which the run is validated and tested, and draw maps of
    the test images.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run, or of images."""
    ask: Ask = "brush"
    """The way in which people make maps. brush: by hand, from nothing or from the model's map. box, points:
    as brush, and --rule makes a map of a box or of points. accept: yes or no to the model's map. mixed: all
    of these."""
    rule: str = "grabcut"
    """The rule that makes a map of a box or of points: grabcut, box, model or segmenter (docs/people.md)."""
    segmenter_weights: Path | None = None
    """A checkpoint of Segment Anything for the rule segmenter."""
    answers_each: int = 1
    """The number of people who answer each image."""
    classes: str = ""
    """The classes of images without any class, divided by commas. Without it people type them in the page."""
    host: str = "127.0.0.1"
    """The address that the page listens on. With 0.0.0.0 other machines reach it; everybody who knows the
    secret in the page's address may answer."""
    port: int | None = None
    """The port. Without it the port is 8422, or a free one if that is taken. 0 is any free one."""
    browser: bool = True
    """Open the page in a browser."""


def main(arguments: list[str]) -> int:
    own, options = _split(arguments)
    label = parsing.one_line(Label, own, "sal-fast label")
    try:
        import uvicorn

        from sal_fast.people.page import server
    except ImportError as error:
        raise InputError(f'sal-fast label needs {error.name}: pip install "sal-fast[label]"') from None
    from sal_fast.people.page.rule import Rules
    from sal_fast.people.page.session import Session, Settings, token

    run, made_with, growth = _run(label, options)
    settings = Settings(
        ask=label.ask,
        rules=_rules(label),
        each=label.answers_each,
        classes=tuple(
            dict.fromkeys(filter(None, (" ".join(one.split()) for one in label.classes.split(","))))
        ),
    )
    folder = run / PEOPLE
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"another page serves {run} already; open its address, or end it first"
    with locked(folder / ".page.lock", busy), _socket(label) as listening:
        session, secret = Session(run, settings, made_with, growth), token(folder)
        rules = Rules(None if label.segmenter_weights is None else str(label.segmenter_weights))
        app = server.application(session, rules, secret, label.host)
        port = listening.getsockname()[1]
        shown = socket.gethostname() if label.host in EVERYWHERE else label.host
        address = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/?token={secret}"
        ends = "It stays until you end this command with Ctrl+C. Answers are kept at once."
        say(f"the page:\n  {address}\n{ends}")
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _end)
        try:
            session.begin()
            if label.browser and _has_a_screen():
                webbrowser.open(address)
            uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run([listening])
        except KeyboardInterrupt:
            pass
        finally:
            session.close()
            rules.close()
    say(f"\nThe page is closed. The same command goes on:\n  sal-fast label {label.run}")
    return 0


def _end(number: int, frame: object) -> None:
    """End the page as Ctrl+C does, so that the program beside it ends, too."""
    raise KeyboardInterrupt


def _split(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """The page's own arguments, and the options of `sal-fast run` by name."""
    taken = set(Label.__dataclass_fields__)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.exit_on_error = False
    for name in OPTIONS.keys() - taken:
        parser.add_argument(*dict.fromkeys((spelling(name), "--" + name)), dest=name, default=UNSET)
    try:
        early, own = parser.parse_known_args(with_values(arguments))
    except argparse.ArgumentError as error:
        raise InputError(str(error)) from None
    return own, {name: value for name, value in vars(early).items() if value is not UNSET}


def _run(label: Label, options: dict[str, str]) -> tuple[Path, dict[str, object] | None, list[str]]:
    """The run's folder, and the options that make it; None if it is there, and the words that let it grow."""
    named = Path(os.path.expanduser(label.run))
    if (named / "run.json").exists():
        fixed = [name for name in options if name not in GROWS]
        if fixed:
            raise InputError(
                f"{spelling(fixed[0])} goes with a folder of images; {named} is a run, which has its options "
                f"already; it takes {', '.join(map(spelling, GROWS))}, to grow"
            )
        people.config_of(RunFolder(named))
        return named, None, _growth(named, options)
    if not named.exists():
        raise InputError(f"{named} does not exist; name the folder of a run, or of images")
    words = [word for name, value in options.items() for word in (spelling(name), value)]
    config = parse([*words, "--data", str(named.resolve()), "--annotator", "people"])
    config.check()
    run = config.run_folder
    source = first.source(run / PEOPLE)
    there = (run / "run.json").exists()
    made_from = RunFolder(run).run()["config"]["data"] if there and source is None else source
    if made_from is not None and Path(made_from).resolve() != named.resolve():
        raise InputError(f"{run} was made from {made_from}; choose another folder with --out")
    if there:
        people.config_of(RunFolder(run))
        asked = config.options()
        # a run from images without any class has a table of its own as its data
        free = ("data",) if source is None else first.READING
        same = {name: asked[name] for name in config.given if name not in (*free, *GROWS)}
        RunFolder(run).check(same)
        return run, None, _growth(run, options)
    given = {name: getattr(config, name) for name in config.given if name != "config"}
    return run, {**given, "out": str(run)}, []


def _growth(run: Path, options: dict[str, str]) -> list[str]:
    """The words that let a run grow. An option that the run has already is none."""
    kept = RunFolder(run).run()["config"]
    names = [name for name in GROWS if name in options and options[name] != str(kept[name])]
    return [word for name in names for word in (spelling(name), options[name])]


def _rules(label: Label) -> tuple[str, ...]:
    """The rules that can be taken, the preferred one first."""
    from sal_fast.people.rules import RULES, available

    there = available(model=True, segmenter=label.segmenter_weights is not None)
    if label.rule == "segmenter" and label.segmenter_weights is None:
        raise InputError("--rule segmenter needs --segmenter-weights FILE, a checkpoint of Segment Anything")
    if label.rule not in RULES:
        raise InputError(f"--rule {label.rule}: expected one of {', '.join(RULES)}")
    if label.rule not in there:
        raise InputError(f'--rule {label.rule} needs OpenCV: pip install "sal-fast[label]"')
    if label.answers_each < 1:
        raise InputError(f"--answers-each {label.answers_each}: expected 1 or more")
    return (label.rule, *(rule for rule in there if rule != label.rule))


def _socket(label: Label) -> socket.socket:
    """A socket that listens. Without --port it takes a free port if the usual one is taken."""
    family = socket.AF_INET6 if ":" in label.host else socket.AF_INET
    ports = [PORT, 0] if label.port is None else [label.port]
    for port in ports:
        made = socket.socket(family)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((label.host, port))
            made.listen(128)  # a browser that is faster than the server waits
        except (OSError, OverflowError, UnicodeError) as error:  # the last two: no port, no name of a host
            made.close()
            if port != ports[-1]:
                continue
            why = getattr(error, "strerror", None) or error
            raise InputError(f"--host {label.host} --port {port}: {why}") from None
        return made
    raise AssertionError


def _has_a_screen() -> bool:
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
