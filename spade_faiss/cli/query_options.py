"""What `query` and `watch` are asked for: how images are judged, which, and what is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from .options import Drift, Exact, IndexSearchParams, OpenOptions, Report, VerdictOptions


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Which files are written of each image; see `write_query`."""

    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Also write, for each wrong place, the good patch that it should resemble.",
        ),
    ] = False
    maps: Annotated[bool, typer.Option(help="Write anomaly maps.")] = True
    overlays: Annotated[bool, typer.Option(help="Write overlay pictures.")] = True
    overlay_size: Annotated[
        str,
        typer.Option(
            metavar="PIXELS",
            help="Longer side of the image in its overlay, or 'full' for the image's own size.",
        ),
    ] = "448"


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """Of which frames of a video, or of a live source, there is what."""

    worst: Annotated[
        int,
        typer.Option(
            min=0,
            help="Frames of a video to write maps of; of a camera or stream, those of each minute "
            "that are not OK.",
        ),
    ] = 10
    fps: Annotated[
        float | None, typer.Option(help="Frames to score of a second of video.  [default: all]")
    ] = None


@dataclass(frozen=True, kw_only=True)
class SpanOptions:
    """How long a live source is judged."""

    frames: Annotated[
        int | None, typer.Option(min=1, help="End a camera or stream after so many frames.")
    ] = None
    seconds: Annotated[
        float | None, typer.Option(help="End a camera or stream after so many seconds.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """How images are judged, and what is written of them."""

    verdict: VerdictOptions
    files: FileOptions
    report: Report = False
    video: VideoOptions
    exact: Exact = False
    search_params: IndexSearchParams = None
    drift: Drift = False
    opened: OpenOptions


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
