"""The command sal-fast: one module per subcommand, loaded when it is asked for.

Exit status: 0 finished, 2 bad input (one clear line), 75 a run waits for people, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

import sal_fast
from sal_fast._util.suggest import suggest
from sal_fast.cli import output
from sal_fast.errors import DISK_FULL, InputError

COMMANDS = {
    "run": "run the experiment on the built-in set, a folder or a manifest; the same command continues it",
    "query": "what a run asks of people: export it, import their answers",
    "sweep": "many runs: every combination of a grid, on this machine or a Ray cluster",
    "score": "run a model over images: ids, logits and features for select",
    "select": "which images of a pool to label next, from features and logits of any origin",
    "report": "figures, tables and one page from run folders",
    "data": "check a data set, prepare it once for all runs, render eye tracking to masks",
    "bench": "what the parts cost on this machine, against what one would otherwise write",
    "doctor": "the machine, the build, the versions, and what is missing",
}


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] in (["--version"], ["-V"]):
        print(f"sal-fast {sal_fast.__version__}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: sal-fast COMMAND [OPTIONS]\n\nSaliency-guided active learning.\n\ncommands:")
        for name, purpose in COMMANDS.items():
            print(f"  {name:8} {purpose}")
        print("\n`sal-fast COMMAND --help` lists a command's options.")
        return 0 if arguments else 2
    name, *rest = arguments
    try:
        if name not in COMMANDS:
            raise InputError(f"unknown command {name!r}{suggest(name, COMMANDS)}")
        from sal_fast._util.progress import heartbeat  # its import costs more than all of `--help`

        with output.logs_shown(), heartbeat():
            status = int(importlib.import_module(f"sal_fast.cli.{name}").main(rest))
        sys.stdout.flush()
        return status
    except InputError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        output.complain(
            "\nsal-fast: interrupted; what is finished is kept, and the same command continues from there"
        )
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno in DISK_FULL:
            where = f" while writing {error.filename}" if error.filename else ""
            return _fail(
                f"the disk is full{where}; what is finished is kept: free some space and repeat the command"
            )
        if error.filename is None:
            raise
        return _fail(f"cannot use {error.filename}: {error.strerror}")


def _fail(message: str) -> int:
    output.complain(f"sal-fast: error: {message}")
    return 2
