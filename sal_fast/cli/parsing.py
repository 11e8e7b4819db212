"""tyro, with its errors on one line like all others; devices by name."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import tyro

from sal_fast.errors import InputError

Value = TypeVar("Value")


def one_line(target: Callable[..., Value], arguments: list[str], prog: str, **options: Any) -> Value:
    """`tyro.cli(target)`; InputError where it would print a box and exit with 2."""
    box = io.StringIO()

    @functools.wraps(target, updated=())
    def later(*values: Any, **named: Any) -> Callable[[], Value]:
        return functools.partial(target, *values, **named)

    try:
        with contextlib.redirect_stderr(box):  # of parsing alone: what the command says is to be seen
            command = tyro.cli(
                later if inspect.isfunction(target) else target,
                args=arguments,
                prog=prog,
                config=(tyro.conf.FlagConversionOff,),
                **options,
            )
    except SystemExit as error:
        if error.code != 2:
            raise
    else:
        return command() if isinstance(command, functools.partial) else command
    # a title, then what was wrong; how the box around them is drawn depends on the terminal
    lines = [line.strip("│|╭╮╰╯─-+ ") for line in box.getvalue().splitlines()]
    said = [line for line in lines if line]
    raise InputError(f"{' '.join(said[1:2] or said)} (see `{prog} --help`)")


def device(name: str) -> torch.device:
    """Of a --device: auto is a GPU if there is one."""
    name = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return place
