"""Options by tyro: an error of the user's becomes one line that names the option, and help fits the screen.

Nothing here imports torch.
"""

import functools
import inspect
import io
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

import docstring_parser
import tyro
from tyro import _errors as parse_errors  # the only place where tyro tells what is wrong as data

from sal_fast._util.suggest import nearest, suggest
from sal_fast.cli.commands import chosen
from sal_fast.cli.output import say
from sal_fast.errors import InputError
from sal_fast.experiment.options import helps_of

Value = TypeVar("Value")


def one_line(target: Callable[..., Value], arguments: list[str], prog: str) -> Value:
    """Call `target`, a function or a dataclass, with the options of a command line, and return its result.

    Its docstrings are the help. Raises InputError, which fits one line, for options that cannot be read;
    `--help` ends the process with status 0.
    """
    text = docstring_parser.parse(target.__doc__ or "").description or ""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    # the help is kept, so that we can break lines that tyro does not; it is made as for the screen
    shown = io.TextIOWrapper(io.BytesIO(), sys.stdout.encoding, write_through=True)
    shown.isatty = sys.stdout.isatty  # type: ignore[method-assign]
    try:
        with parse_errors.on_parse_error(functools.partial(_refuse, target)), redirect_stdout(shown):
            call = tyro.cli(
                _later(target),
                args=arguments,
                prog=prog,
                description="\n\n".join(paragraphs),
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit:
        shown.seek(0)
        say(shown.read().rstrip())
        raise
    return call()


def one_of(commands: Mapping[str, Callable[..., Any]], arguments: list[str], prog: str, about: str) -> int:
    """Do the command that comes first in `arguments`, with the options that follow; return its exit status.

    A command is a function, or a class whose fields are the options and whose method `run` does it. The first
    line of each command's docstring tells what it does in the list of all.
    """
    purposes = {name: (one.__doc__ or "").split("\n", 1)[0].rstrip(".") for name, one in commands.items()}
    name = chosen(purposes, arguments, prog, about)
    if name is None:
        return 0 if arguments else 2
    done = one_line(commands[name], arguments[1:], f"{prog} {name}")
    return (done.run() if isinstance(commands[name], type) else done) or 0


def _later(target: Callable[..., Value]) -> Callable[..., Callable[[], Value]]:
    """A function with the options of `target` that returns the call, so that its errors are not tyro's.

    A path begins in the user's home if it begins with ~.

    Its docstring has the options' texts without the line breaks of the source, which tyro would keep.
    """

    def later(*values: Any, **named: Any) -> Callable[[], Value]:
        values = tuple(map(_at_home, values))
        return functools.partial(target, *values, **{name: _at_home(one) for name, one in named.items()})

    classes = reversed(target.__mro__[:-1]) if isinstance(target, type) else (target,)
    texts = {name: text for cls in classes for name, text in helps_of(cls).items()}
    later.__doc__ = "Call later.\n\nArgs:\n" + "".join(
        f"    {name}: {text}\n" for name, text in texts.items()
    )
    later.__annotations__ = get_type_hints(target, include_extras=True)
    later.__signature__ = inspect.signature(target)  # type: ignore[attr-defined]
    return later


def _at_home(value: Any) -> Any:
    return value.expanduser() if isinstance(value, Path) else value


def _refuse(target: Callable[..., Any], event: parse_errors.ParseErrorEvent) -> NoReturn:
    """Raise InputError for an error that tyro has found."""
    unknown = getattr(event, "tokens", None) or getattr(event, "unrecognized_tokens", None)
    argument = getattr(event, "argument", None)
    option = argument.display_name() if argument is not None else ""
    if unknown:
        said = _unknown(unknown[0], target)
    elif isinstance(event, parse_errors.MissingArgs):
        said = f"missing {', '.join(_name(one.arg) for one in event.missing_arguments)}"
    elif isinstance(event, parse_errors.InvalidChoice):
        raise InputError(f"{option}: unknown value {event.value!r}{suggest(event.value, event.choices)}")
    elif isinstance(event, parse_errors.BadValue):
        said = f"{option} needs a value"
    elif isinstance(event, parse_errors.InstantiationFailure) and argument is not None:
        reason = re.sub("^- <.*?>: ", "", event.message.splitlines()[-1])  # of several types, the last one's
        said = f"{option}: expected {argument.lowered.metavar} ({reason})"
    else:
        said = getattr(event, "message", None) or type(event).__name__
    raise InputError(f"{said} (see `{event.prog} --help`)")


def _name(argument: Any) -> str:
    """An option's spelling, or a positional argument as the usage line shows it if that tells more."""
    if not argument.is_positional():
        return str(argument.display_name())
    metavar = str(argument.lowered.metavar)
    return argument.display_name().upper() if metavar in ("STR", "PATH") else metavar


def _unknown(word: str, target: Callable[..., Any]) -> str:
    if not word.startswith("-"):
        return f"unexpected {word!r}"
    options = [f"--{name.replace('_', '-')}" for name in inspect.signature(target).parameters]
    close = nearest(word.partition("=")[0], options)
    return f"unknown option {word}" + (f"; did you mean {close}?" if close else "")
