"""Query an index: `query`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import Console
from .options import AsJson, Folder, MaxMemory, NotifyOptions, Out, RayOptions
from .query_options import QueryOptions, SpanOptions
from .values import existing_folder, memory_limit


def query(
    console: Console,
    folder: Folder,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE_OR_FOLDER...",
            help="Images, videos, or folders of them; or camera:0, rtsp://HOST/PATH, "
            "http://HOST/PATH.",
        ),
    ],
    *,
    out: Out,
    options: QueryOptions,
    span: SpanOptions,
    notify: NotifyOptions,
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
    from ..images.video.live import is_live
    from .each import one_index, production_lines_to_query

    if any(is_live(one) for one in images):
        from .line_run import LineRun

        memory_limit(max_memory)
        run_live = LineRun(console, options, notify, as_json=as_json)
        not_live = {"each": each, "ray": cluster.ray, "report": options.report}
        run_live.live(
            one_index(folder), images, out, span, options.video, not_live | {"drift": options.drift}
        )
        return
    from ..distributed.cluster import ray_executor, start_workers
    from .notify import notifier_of
    from .query_run import QueryRun

    limit, paths = memory_limit(max_memory, cluster.ray), [Path(one) for one in images]
    run, device = QueryRun(console, options, span), options.opened.device
    if each:
        names = production_lines_to_query(existing_folder(folder), paths)
        with (
            start_workers(cluster.ray, cluster.ray_workers, device, limit) as workers,
            notifier_of(console, notify, out, again=True) as run.notifier,
        ):
            answers = run.each(names, folder, paths[0], out, workers)
        console.answer_lines(answers, as_json=as_json)
    else:
        found, detector = run.open(one_index(folder), paths)
        with (
            ray_executor(cluster.ray, cluster.ray_workers, device, limit) as executor,
            notifier_of(console, notify, out, again=True) as run.notifier,
        ):
            record, text = run.write(found, detector.on(executor), out)
        console.answer(record | console.record(), text, as_json=as_json)
    console.exit(done=run.scored)
