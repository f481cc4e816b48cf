"""Query an index: `query`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from .console import Console
from .options import (
    AsJson,
    Drift,
    Exact,
    Folder,
    IndexSearchParams,
    MaxMemory,
    OpenOptions,
    Out,
    RayOptions,
    Report,
    VerdictOptions,
)
from .values import existing_folder, memory_limit


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """Which files are written of each image and video; see `write_query`."""

    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Also write, for each wrong place, the good patch that it should resemble.",
        ),
    ] = False
    report: Report = False
    maps: Annotated[bool, typer.Option(help="Write anomaly maps.")] = True
    overlays: Annotated[bool, typer.Option(help="Write overlay pictures.")] = True
    overlay_size: Annotated[
        str,
        typer.Option(
            metavar="PIXELS",
            help="Longer side of the image in its overlay, or 'full' for the image's own size.",
        ),
    ] = "448"
    worst: Annotated[int, typer.Option(min=0, help="Frames of a video to write maps of.")] = 10
    fps: Annotated[
        float | None, typer.Option(help="Frames to score of a second of video.  [default: all]")
    ] = None


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """How images are judged, and what is written of them."""

    verdict: VerdictOptions
    results: ResultOptions
    exact: Exact = False
    search_params: IndexSearchParams = None
    drift: Drift = False
    opened: OpenOptions


def query(
    console: Console,
    folder: Folder,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE_OR_FOLDER...", help="Images, videos, or folders of them."),
    ],
    *,
    out: Out,
    options: QueryOptions,
    max_memory: MaxMemory = None,
    each: Annotated[
        bool,
        typer.Option(
            "--each",
            help="Query each index DIR/<name> with the images in the folder <name> of the "
            "one folder that is given, into a folder <name> of --out.",
        ),
    ] = False,
    cluster: RayOptions,
    as_json: AsJson = False,
) -> None:
    """Say which images are wrong, and where: scores.csv, maps/, overlays/, explain/, timelines/."""
    from ..distributed.cluster import ray_executor, start_workers
    from .each import one_index, production_lines_to_query
    from .query_run import QueryRun

    limit = memory_limit(max_memory, cluster.ray)
    run, device = QueryRun(console, options), options.opened.device
    if each:
        names = production_lines_to_query(existing_folder(folder), images)
        with start_workers(cluster.ray, cluster.ray_workers, device, limit) as workers:
            answers = run.each(names, folder, images[0], out, workers)
        console.answer_lines(answers, as_json=as_json)
    else:
        found, detector = run.open(one_index(folder), images)
        with ray_executor(cluster.ray, cluster.ray_workers, device, limit) as executor:
            record, text = run.write(found, detector.on(executor), out)
        console.answer(record | console.record(), text, as_json=as_json)
    console.exit(done=run.scored)
