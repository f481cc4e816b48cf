"""Serve an index over HTTP: `serve`."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from .._support.memory import parse_size
from .console import Console, in_flags
from .options import BatchSize, Device, EachWeights, Engine, SearchParams, VerdictOptions


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """How much a client may ask for, and how much may wait."""

    max_mib: Annotated[int, typer.Option(min=1, help="MiB of a request.")] = 32
    max_images: Annotated[int, typer.Option(min=1, help="Images of a request.")] = 16
    max_megapixels: Annotated[
        int, typer.Option(min=1, help="Millions of pixels of a request's images together.")
    ] = 32
    max_queue: Annotated[int, typer.Option(min=1, help="Images accepted and not answered yet.")] = (
        64
    )
    max_wait: Annotated[
        float,
        typer.Option(
            min=0, help="Milliseconds that an image waits for others to be queried with it."
        ),
    ] = 1


@dataclass(frozen=True, kw_only=True)
class HistoryOptions:
    """Where results are kept, and how many."""

    history: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep results here, and images as they were sent, which the page then can "
            "take as good ones.",
        ),
    ] = None
    history_days: Annotated[
        float, typer.Option(min=0.001, help="Days after which a result goes.")
    ] = 30
    history_results: Annotated[int, typer.Option(min=1, help="Results that are kept.")] = 100_000
    history_mib: Annotated[
        int, typer.Option(min=0, help="MiB of images that are kept; those that were OK go first.")
    ] = 1024


def serve(
    console: Console,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="An index, or a folder of indices.")
    ],
    *,
    host: Annotated[
        str, typer.Option(help="Where to listen; any but a loopback address needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="SPADE_FAISS_TOKEN",
            show_envvar=True,
            help="What clients must show as a bearer "
            "token. A list of processes shows options, but not the environment.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name that the service also goes by, such as a reverse proxy's; "
            "may be given again.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Another site whose pages may use the service, https://HOST:PORT; with a token, "
            "'*' is all; may be given again.",
        ),
    ] = None,
    access_log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Add a line of JSON to this file for each request; - is standard error.",
        ),
    ] = None,
    editable: Annotated[
        bool,
        typer.Option(
            "--editable",
            help="Let clients draw another region that is looked at, and add images; both change "
            "the index.",
        ),
    ] = False,
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Of a folder of indices, drop those used least recently while the service takes "
            "more memory than this: 2GiB, 800MiB. What is mapped from files does not count.",
        ),
    ] = None,
    limits: LimitOptions,
    kept: HistoryOptions,
    verdict: VerdictOptions,
    weights: EachWeights = None,
    engine: Engine = "auto",
    search_params: SearchParams = None,
    device: Device = "auto",
    batch_size: BatchSize = 8,
) -> None:
    """Serve an index, or a folder of them, over HTTP, with a page to drop images on.

    Needs the extra 'serve'.
    """
    from ..service import Bounds, Limits, serve

    logging.getLogger("spade_faiss").addFilter(_in_flags)
    all_answered = serve(
        folder,
        host=host,
        port=port,
        token=token,
        allow_hosts=allow_host or (),
        allow_origins=allow_origin or (),
        access_log=access_log,
        limits=Limits(
            bytes=limits.max_mib << 20,
            images=limits.max_images,
            pixels=limits.max_megapixels * 1_000_000,
            queue=limits.max_queue,
            batch=batch_size,
            wait=limits.max_wait / 1000,
        ),
        editable=editable,
        max_memory=None if max_memory is None else parse_size(max_memory),
        history=kept.history,
        bounds=Bounds(
            days=kept.history_days, results=kept.history_results, bytes=kept.history_mib << 20
        ),
        weights=weights or (),
        engine=engine,
        search_params=search_params,
        device=device,
        **asdict(verdict),
    )
    if not all_answered:
        console.say("ended before all requests were answered")
        raise typer.Exit(1)


def _in_flags(record: logging.LogRecord) -> bool:
    """Render the library's words in what the service logs."""
    record.msg, record.args = in_flags(record.getMessage()), ()
    return True
