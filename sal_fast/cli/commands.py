"""Commands by name: which one a command line begins with, and the list of all."""

from collections.abc import Mapping

from sal_fast._util.suggest import suggest
from sal_fast.cli.output import columns, say, wrapped
from sal_fast.errors import InputError


def chosen(commands: Mapping[str, str], arguments: list[str], prog: str, about: str) -> str | None:
    """The command that comes first in `arguments`, one of `commands` (what each does, by name).

    Prints `about` and the list of commands, and returns None, where no command or help is asked for. Raises
    InputError for an unknown one.
    """
    if arguments[:1] in ([], ["-h"], ["--help"]):
        wide = max(map(len, commands)) + 4
        listed = (
            wrapped(text, columns(), initial_indent=f"  {name}".ljust(wide), subsequent_indent=" " * wide)
            for name, text in commands.items()
        )
        say("\n".join([f"usage: {prog} COMMAND [OPTIONS]", "", about, "", "commands:", *listed]))
        say(f"\n`{prog} COMMAND --help` lists a command's options.")
        return None
    name = arguments[0]
    if name not in commands:
        known = prog.removeprefix("sal-fast").strip()
        raise InputError(f"unknown command {f'{known} {name}'.strip()!r}{suggest(name, commands)}")
    return name
