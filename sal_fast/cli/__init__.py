"""The command sal-fast: one module per subcommand, loaded when it is asked for.

Exit status: 0 finished, 2 bad input (one clear line), 75 a run waits for people, 130 interrupted.
"""

import importlib
import logging
import os
import signal
import sys

import sal_fast
from sal_fast._util import waiting
from sal_fast.cli import output
from sal_fast.cli.commands import chosen
from sal_fast.errors import DISK_FULL, InputError

COMMANDS = {
    "run": "run the experiment; the same command continues it",
    "label": "label and draw in a browser, while the run goes on by itself",
    "query": "what a run asks of people, and what they answered",
    "sweep": "run every combination of a grid, here or on a Ray cluster",
    "predict": "write the classes of images, by a trained model",
    "explain": "draw where a trained model looks on images",
    "export": "write a trained model for ONNX Runtime or for torch alone",
    "score": "run a model over images: ids, logits and features for select",
    "evaluate": "judge a trained model on a data set, with figures, tables and plots",
    "select": "choose the images to label next, from any features and logits",
    "report": "make figures, tables and one page from run folders",
    "data": "check or prepare a data set, or render eye tracking to masks",
    "bench": "measure what the parts cost here, against the usual code",
    "doctor": "show the machine, the build and the versions, and what is missing",
}

# the commands whose own process computes for a while
LONG = ("run", "predict", "explain", "score", "evaluate")

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] in (["--version"], ["-V"]):
        print(f"sal-fast {sal_fast.__version__}")
        return 0
    try:
        name = chosen(COMMANDS, arguments, "sal-fast", "Saliency-guided active learning.")
        if name is None:
            return 0 if arguments else 2
        said = waiting.choose() if name in LONG else ""  # before torch is imported
        from sal_fast._util.progress import heartbeat  # its import costs more than all of `--help`

        with output.logs_shown(), heartbeat():
            if said:
                log.info("%s", said)
            status = int(importlib.import_module(f"sal_fast.cli.{name}").main(arguments[1:]))
        sys.stdout.flush()
        return status
    except SystemExit as done:  # a command's --help
        sys.stdout.flush()
        if not isinstance(done.code, int | None):
            raise
        return done.code or 0
    except InputError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        output.tell(
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
    output.tell(f"sal-fast: error: {message}")
    return 2
