"""Options by tyro: its errors become one line that names the option, and its help fits the screen.

Nothing here imports torch before a command has its options.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_type_hints

import docstring_parser
import tyro
from tyro import _errors as parse_errors  # the only place where tyro tells what is wrong as data
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from sal_fast._util.suggest import nearest, suggest
from sal_fast.cli.output import columns, wrapped
from sal_fast.errors import InputError

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")
CONFIG = (tyro.conf.FlagConversionOff,)
registry = ConstructorRegistry()


def one_line(target: Callable[..., Value], arguments: list[str], prog: str) -> Value:
    """Make `target`, a dataclass or a function, from the options of a command line, and return its result.

    Raises InputError for options that cannot be read; `--help` ends the process with status 0.
    """
    with parse_errors.on_parse_error(functools.partial(_refuse, [target], ())):
        made = tyro.cli(
            _later(target),
            args=arguments,
            prog=prog,
            description=_description(target),
            config=CONFIG,
            registry=registry,
        )
    return made() if isinstance(made, functools.partial) else made


def subcommand(
    commands: Mapping[str, Callable[..., Value]], arguments: list[str], prog: str, about: str
) -> Value:
    """Call the command that comes first in `arguments` with the options after it; help lists all of them."""
    with parse_errors.on_parse_error(functools.partial(_refuse, list(commands.values()), tuple(commands))):
        made: Any = tyro.extras.subcommand_cli_from_dict(
            {name: _later(command) for name, command in commands.items()},
            args=arguments,
            prog=prog,
            description=_indented(about),
            config=CONFIG,
            registry=registry,
        )
    result: Value = made()
    return result


def device(name: str) -> torch.device:
    """The device that --device names; auto is a GPU if there is one. Raises InputError if there is none."""
    import torch

    name = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return place


def _later(target: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns the call instead of making it: tyro would take its errors for bad options."""

    @functools.wraps(target, updated=())
    def later(*values: Any, **named: Any) -> functools.partial[Any]:
        return functools.partial(target, *values, **named)

    return later if inspect.isfunction(target) else target


def _refuse(
    targets: list[Callable[..., Any]], commands: tuple[str, ...], event: parse_errors.ParseErrorEvent
) -> NoReturn:
    """Raise InputError for an error that tyro has found."""
    unknown = getattr(event, "tokens", None) or getattr(event, "unrecognized_tokens", None)
    argument = getattr(event, "argument", None)
    option = argument.display_name() if argument is not None else ""
    if unknown:
        said = _unknown(unknown[0], targets, commands)
    elif isinstance(event, parse_errors.MissingArgs):
        said = f"missing {', '.join(_name(one.arg) for one in event.missing_arguments)}"
    elif isinstance(event, parse_errors.MissingSubcommand):
        said = f"missing command: expected one of {', '.join(commands)}"
    elif isinstance(event, parse_errors.InvalidChoice):
        raise InputError(f"{option}: unknown value {event.value!r}{suggest(event.value, event.choices)}")
    elif isinstance(event, parse_errors.BadValue):
        said = f"{option} needs a value"
    elif isinstance(event, parse_errors.InstantiationFailure) and argument is not None:
        reason = event.message.splitlines()[0].rstrip(".")
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


def _unknown(word: str, targets: list[Callable[..., Any]], commands: tuple[str, ...]) -> str:
    if not word.startswith("-"):
        return f"unknown command {word!r}{suggest(word, commands)}" if commands else f"unexpected {word!r}"
    names = [name for target in targets for name in inspect.signature(target).parameters]
    close = nearest(word.partition("=")[0], [f"--{name.replace('_', '-')}" for name in names])
    return f"unknown option {word}" + (f"; did you mean {close}?" if close else "")


def _description(target: Callable[..., Any]) -> str:
    return _indented(docstring_parser.parse(target.__doc__ or "").description or "")


def _indented(text: str) -> str:
    """Paragraphs whose lines fit the screen. Their indent keeps tyro from joining the lines again."""
    return "\n".join(wrapped(" ".join(part.split()), columns(), " ") for part in text.split("\n\n"))


@registry.struct_rule
def _documented(info: StructTypeInfo) -> StructConstructorSpec | None:
    """A dataclass whose fields' docstrings are running text: tyro would keep the source's line breaks."""
    if not (isinstance(info.type, type) and dataclasses.is_dataclass(info.type)):
        return None
    texts = {
        one.arg_name: " ".join((one.description or "").split())
        for cls in reversed(info.type.__mro__[:-1])
        for one in docstring_parser.parse_from_object(cls).params
    }
    kinds = get_type_hints(info.type, include_extras=True)
    return StructConstructorSpec(
        instantiate=info.type,
        fields=tuple(
            StructFieldSpec(
                name=field.name,
                type=kinds[field.name],
                default=tyro.MISSING if field.default is dataclasses.MISSING else field.default,
                helptext=texts.get(field.name),
            )
            for field in dataclasses.fields(info.type)
        ),
    )
