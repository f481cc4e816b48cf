"""Watch a folder into which a camera writes: `watch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import Console
from .options import Folder, MaxMemory, NotifyOptions, Out
from .query_options import PaceOptions, WatchOptions
from .values import existing_folder, memory_limit

AsLines = Annotated[bool, typer.Option("--json", help="Print one line of JSON an image.")]


def watch(
    console: Console,
    folder: Folder,
    watched: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where images come, at any depth.")
    ],
    *,
    out: Out,
    pace: PaceOptions,
    options: WatchOptions,
    notify: NotifyOptions,
    max_memory: MaxMemory = None,
    as_json: AsLines = False,
) -> None:
    """Judge each image that comes into a folder, until Ctrl-C; what is judged stays so."""
    from .each import one_index
    from .line_run import LineRun

    memory_limit(max_memory)
    run = LineRun(console, options, notify, as_json=as_json)
    run.watch(one_index(folder), existing_folder(watched), out, pace)
