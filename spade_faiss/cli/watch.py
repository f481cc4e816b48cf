"""Watch a folder into which a camera writes: `watch`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from .console import Console
from .options import (
    Exact,
    Folder,
    IndexSearchParams,
    MaxMemory,
    NotifyOptions,
    OpenOptions,
    Out,
    VerdictOptions,
)
from .query import FileOptions
from .values import existing_folder, memory_limit

AsLines = Annotated[bool, typer.Option("--json", help="Print one line of JSON an image.")]


@dataclass(frozen=True, kw_only=True)
class PaceOptions:
    """When the folder is looked at, and when a file counts as complete."""

    every: Annotated[
        float, typer.Option(metavar="SECONDS", help="From one look at the folder to the next.")
    ] = 0.5
    settle: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="A file is read when it has not changed for so long."),
    ] = 1.0
    patience: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="A file that cannot be decoded gets an ERROR when it has not changed for so long.",
        ),
    ] = 30.0


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """How images are judged, and what is written of them."""

    verdict: VerdictOptions
    files: FileOptions
    exact: Exact = False
    search_params: IndexSearchParams = None
    opened: OpenOptions


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
