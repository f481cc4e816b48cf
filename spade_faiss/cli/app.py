"""The command line: its commands, exit statuses, errors in one line, and signals."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import metadata
from io import TextIOWrapper
from typing import Annotated

import typer

from .._support.text import printable
from .build import add, build, info, remove
from .calibrate import calibrate
from .command import command_of
from .console import reason
from .demo import demo
from .evaluate import evaluate_folder, evaluate_mvtec, evaluate_stc
from .query import query
from .serve import serve
from .watch import watch

_M_ARENA_MAX = -8  # of glibc's malloc.h

# What a command needs is imported inside it: --help and mistakes answer at once, without torch.

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn from images of good parts; say which new image is wrong, where, and what the "
    "wrong place should have looked like.",
)
evaluate = typer.Typer(no_args_is_help=True, help="Score SPADE on a data set of known defects.")
app.add_typer(evaluate, name="evaluate", rich_help_panel=None)

COMMANDS: tuple[Callable[..., None], ...] = (
    build,
    add,
    remove,
    calibrate,
    info,
    query,
    watch,
    serve,
    demo,
)
EVALUATIONS: dict[str, Callable[..., None]] = {
    "mvtec": evaluate_mvtec,
    "folder": evaluate_folder,
    "stc": evaluate_stc,
}
for work in COMMANDS:
    app.command()(command_of(work))
for name, work in EVALUATIONS.items():
    evaluate.command(name)(command_of(work))


def _version(asked: bool) -> None:  # noqa: FBT001 - called by typer
    if asked:
        print(f"spade-faiss {metadata.version('spade-faiss')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show where an error arose, and what searches on the CPU."),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options that every command has."""


def main() -> None:
    """Run the command line: exit status 0 done, 1 some inputs failed, 2 not done."""
    # By itself Python has no handler for it: temporary files stay, and as the first process of a
    # container it is not ended at all.
    signal.signal(signal.SIGTERM, _terminate)
    # Importing torch makes a million objects that stay: to look through them for garbage again and
    # again, and once more at the end, takes 0.6 s, as long as to score seven images.
    gc.set_threshold(100_000)
    if platform.libc_ver()[0] == "glibc":  # would give each thread a heap, and keep 90 MB in them
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    if isinstance(sys.stdout, TextIOWrapper):  # which need not be UTF-8, as on Windows
        sys.stdout.reconfigure(errors="backslashreplace")
    status = run(sys.argv[1:])
    gc.freeze()
    sys.exit(status)


def _terminate(number: int, frame: object) -> None:
    os.write(2, b"spade-faiss: terminated\n")  # print() may have been interrupted itself
    sys.exit(128 + number)


def run(arguments: list[str]) -> int:
    """Run the command line, and return its exit status."""
    debug = "--debug" in arguments
    if debug:
        logging.basicConfig(format="spade-faiss: %(message)s")
        logging.getLogger("spade_faiss").setLevel(logging.DEBUG)
    try:
        rest = [argument for argument in arguments if argument != "--debug"]
        command = typer.main.get_command(app)
        return int(command.main(rest, "spade-faiss", standalone_mode=False) or 0)
    except KeyboardInterrupt:
        print("spade-faiss: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        else:
            print(_refusal(error), file=sys.stderr)
        return 2


def _refusal(error: Exception) -> str:
    """Return what is said of an error that ended a command: one line, or all the help."""
    if not hasattr(error, "format_message"):
        return f"spade-faiss: {printable(reason(error))}"
    line: str = error.format_message()  # of what Typer raises for a wrong call
    if line.startswith("Usage: "):  # no command was given
        return line
    return f"spade-faiss: {printable(' '.join(line.split()))} (see --help)"
