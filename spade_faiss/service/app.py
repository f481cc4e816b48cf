"""The service's requests and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import numpy.typing as npt
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .._support.text import printable
from ..detector import Detector
from ..detector.result import Result
from ..errors import SpadeError
from ..images import decode_image
from ..index import Manifest
from ..report.colours import CLEAR, FULL, style_sheet
from ..report.pictures import SHOWN_REGIONS
from ..verdict import find_regions
from . import pictures
from .answers import (
    Health,
    IndexAnswer,
    IndexMember,
    LevelShape,
    MatchedPatch,
    Outdated,
    Problem,
    QueriedImage,
    QueryAnswer,
    Score,
    Verdict,
    WrongRegion,
)
from .batcher import Batcher
from .guard import QUERY, STATIC, Guard, State
from .limits import Admission, Limits, Refusal
from .live import Awaited, LiveIndex, Served
from .metrics import Metrics
from .parameters import check_parameters, no_such_place
from .uploads import PART, Upload, count_pixels, read_uploads

_PAGE = Path(__file__).parent / "page"
_THREADS = 4
"""For decoding and for pictures; the worker that queries has a thread of its own."""

_Pixels = npt.NDArray[np.uint8]
_Item = tuple[Served, _Pixels]

_TYPES = "image/png, image/jpeg, image/bmp, image/tiff, image/webp"
_WHY = {
    401: "The token is missing or wrong.",
    403: "A page of another site asks.",
    408: "The body takes too long to arrive.",
    413: "More bytes, pixels or images than the limits allow.",
    415: "No multipart form, or a file that is no image.",
    421: "The host is called by a name that is not allowed.",
    422: "A parameter is unknown, given twice or wrong, or the form or an image is damaged.",
    429: "The queue is full; Retry-After says when to try again.",
    503: "The service is shutting down or not ready.",
}


class MapFormat(StrEnum):
    """How maps are sent: 16-bit grey PNG with a scale, or float32 TIFF."""

    PNG = "png"
    TIFF = "tiff"


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": _WHY[status]} for status in statuses}


def _body(limits: Limits) -> dict[str, Any]:
    """Return the description of a query's body."""
    images = {
        "type": "array",
        "minItems": 1,
        "maxItems": limits.images,
        "items": {"type": "string", "format": "binary"},
        "description": "PNG, JPEG, BMP, TIFF or WebP files, a part each; in all at most "
        f"{limits.images} of {limits.pixels:,} pixels and {limits.bytes:,} bytes.",
    }
    schema = {
        "type": "object",
        "required": [PART],
        "additionalProperties": False,
        "properties": {PART: images},
    }
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": schema, "encoding": {PART: {"contentType": _TYPES}}}
        },
    }


def create_app(
    live: LiveIndex,
    limits: Limits,
    state: State,
    token: str | None = None,
    hosts: Collection[str] | None = (),
) -> FastAPI:
    """Return the service as an ASGI application.

    Parameters
    ----------
    live : LiveIndex
        Is closed when the application shuts down.
    limits : Limits
    state : State
        To be told when to drain, and to tell when that is done.
    token : str, optional
        What clients must show as a bearer token.
    hosts : collection of str or None
        Names that the service goes by, besides loopback addresses; None for any.
    """
    admission = Admission(limits)
    metrics = Metrics(
        lambda: batcher.waiting, lambda: admission.images, lambda: _outdated_for(live.take()[1])
    )
    live.on_reload = lambda well: metrics.reloads.labels("served" if well else "refused").inc()

    batcher: Batcher[_Item, Result] = Batcher(
        _query_together, limits.batch, limits.wait, metrics.batches.observe
    )
    threads = ThreadPoolExecutor(_THREADS, "pictures")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        live.watch()
        yield
        batcher.close()
        threads.shutdown()
        live.close()

    app = FastAPI(
        title="spade-faiss",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(check_parameters)],
        description="Says which image is wrong, where, and which good patch it should resemble. "
        "A parameter that is not described here, or is given twice, is refused "
        "(422).",
    )
    app.add_middleware(Guard, state=state, limits=limits, metrics=metrics, token=token, hosts=hosts)

    @app.get(STATIC + "colours.css", include_in_schema=False)
    async def colours() -> Response:
        return Response(style_sheet(), media_type="text/css")

    app.mount(STATIC.rstrip("/"), StaticFiles(directory=_PAGE))
    _add_handlers(app)
    guarded = _problems(401, 421, 422) if token is not None else _problems(421, 422)
    # Guard checks the token; this tells of it in the description.
    shown = [Depends(HTTPBearer(auto_error=False))] if token is not None else []

    @app.post(
        QUERY,
        response_model=QueryAnswer,
        summary="Query images",
        responses=guarded | _problems(403, 408, 413, 415, 429, 503),
        openapi_extra={"requestBody": _body(limits)},
        dependencies=shown,
    )
    async def query(
        request: Request,
        maps: Annotated[
            MapFormat | None,
            Query(description="Also send the anomaly maps: tiff is float32, png 16-bit grey."),
        ] = None,
        pictures: Annotated[
            bool,
            Query(
                description="Also send each image, its overlay, and closer looks at the wrong "
                "places and at the good patches matched with them."
            ),
        ] = False,
    ) -> Response:
        """Score images, and say where they are wrong and what the places should look like."""
        run = asyncio.get_running_loop().run_in_executor
        with ExitStack() as held:
            held.enter_context(admission.enter(1))  # a body takes room before its end is known
            uploads = await read_uploads(request, limits)
            pixels = await run(threads, count_pixels, uploads, limits)
            held.enter_context(admission.enter(len(uploads) - 1, pixels))
            images = await asyncio.gather(*(run(threads, _decode, one) for one in uploads))
            # All images of a request are for one index, whatever comes meanwhile.
            served, awaited = await run(threads, live.take)
            results = await asyncio.gather(
                *(asyncio.wrap_future(batcher.submit((served, image))) for image, _ in images)
            )
            answers = await asyncio.gather(
                *(
                    run(threads, _answer, upload.name, notes, served.spade, result, maps, pictures)
                    for upload, (_, notes), result in zip(uploads, images, results, strict=True)
                )
            )
            for answer in answers:
                metrics.verdicts.labels(answer.verdict or "none").inc()
            whole = QueryAnswer(
                **_named(served, awaited), score=cast(Score, served.spade.score), images=answers
            )
            return Response(
                await run(threads, whole.model_dump_json), media_type="application/json"
            )

    @app.get(
        "/v1/index",
        response_model=IndexAnswer,
        summary="The index in service",
        responses=guarded,
        dependencies=shown,
    )
    async def index() -> IndexAnswer:
        """Say what the index, or the members of the ensemble, hold; and where thresholds lie."""
        return _describe(*await asyncio.get_running_loop().run_in_executor(threads, live.take))

    @app.get("/healthz", response_model=Health, summary="Alive", responses=_problems(421, 422))
    async def healthz() -> Health:
        """Answer as long as the service runs."""
        return Health(status="ok")

    @app.get("/readyz", response_model=Health, summary="Ready", responses=_problems(421, 422, 503))
    async def readyz() -> Health:
        """Say whether queries are accepted."""
        if state.draining:
            raise Refusal(503, "the service is shutting down", 5)
        if not batcher.alive:
            raise Refusal(503, "the worker has ended; start the service again")
        return Health(status="ready")

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        summary="Metrics for Prometheus",
        responses=guarded,
        dependencies=shown,
    )
    async def scrape() -> Response:
        """Give requests, latency, queue, batch sizes and verdicts in Prometheus' text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    templates = Environment(loader=PackageLoader(__package__, "page"), autoescape=True)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(templates.get_template("index.html").render(clear=CLEAR, full=FULL))

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        text = templates.get_template("docs.html").render(
            api=app.openapi(), origin=str(request.base_url).rstrip("/")
        )
        return HTMLResponse(text)

    return app


def _add_handlers(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> JSONResponse:
        return JSONResponse({"detail": refusal.why}, refusal.status, refusal.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        lines = (f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
        return JSONResponse({"detail": "; ".join(lines)}, 422)

    @app.exception_handler(HTTPException)
    async def lost(request: Request, error: HTTPException) -> JSONResponse:
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        if error.status_code == 405 and headers.get("allow", "GET") == "GET":
            headers["allow"] = "GET, HEAD"  # as Guard has it
        detail = no_such_place(request, headers.get("allow"))
        return JSONResponse({"detail": detail}, error.status_code, headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)


def _query_together(items: Sequence[_Item]) -> list[Result]:
    """Query images, in their order; those that follow each other for one index together."""
    return [
        result
        for served, group in groupby(items, key=itemgetter(0))
        for result in served.spade.query([image for _, image in group])
    ]


def _decode(upload: Upload) -> tuple[_Pixels, list[str]]:
    """Return an image, and what is noted of it."""
    notes: list[str] = []
    try:
        return decode_image(upload.data, notes.append), notes
    except SpadeError as error:
        raise Refusal(422, f"{upload.name}: {error}") from None
    finally:
        upload.data = bytearray()


def _answer(
    name: str,
    notes: list[str],
    spade: Detector,
    result: Result,
    maps: MapFormat | None,
    with_pictures: bool,
) -> QueriedImage:
    index, limit = spade.index_, spade.pixel_threshold
    score = spade.score_of(result)
    places = spade.places_from(score)
    regions = [] if places is None else find_regions(result, index, places)
    encode = pictures.tiff_map if maps is MapFormat.TIFF else pictures.png_map
    wrong = []
    for number, region in enumerate(regions):
        shown = with_pictures and number < SHOWN_REGIONS
        here, good = pictures.looks(result, index, region) if shown else (None, None)
        wrong.append(
            WrongRegion(
                box=region.box,
                area=region.area,
                peak=region.peak,
                peak_at=region.peak_at,
                matches=[
                    MatchedPatch(
                        level=match.level,
                        distance=match.distance,
                        image=printable(match.image),
                        box=match.box,
                        query_box=match.query_box,
                    )
                    for match in region.matches
                ],
                here=None if here is None else pictures.jpeg(here),
                good=None if good is None else pictures.jpeg(good),
            )
        )
    framing = index.manifest.framing.framing()
    return QueriedImage(
        name=name,
        width=result.map.shape[1],
        height=result.map.shape[0],
        score=score,
        threshold=spade.image_threshold,
        review=spade.review,
        verdict=cast(Verdict, spade.verdict_of(score)) or None,
        peak=result.peak,
        pixel_threshold=limit,
        descriptor_score=result.descriptor_score,
        regions=wrong,
        notes=[*notes, *result.notes],
        map=encode(result.map) if maps else None,
        photo=pictures.jpeg(pictures.photo(result)) if with_pictures else None,
        overlay=pictures.jpeg(pictures.overlay(result, framing, limit)) if with_pictures else None,
    )


def _named(served: Served, awaited: Awaited | None) -> dict[str, Any]:
    """Return the fields that say which index answers, and whether that is the newest."""
    manifest = served.spade.manifest
    outdated = awaited and Outdated(
        since=awaited.since, until=awaited.until, problem=awaited.problem
    )
    return {
        "generation": manifest.generation,
        "created": manifest.created,
        "manifest_sha256": served.manifest_sha256,
        "outdated": outdated,
    }


def _outdated_for(awaited: Awaited | None) -> float:
    return (datetime.now(UTC) - awaited.since).total_seconds() if awaited else 0.0


def _describe(served: Served, awaited: Awaited | None) -> IndexAnswer:
    spade, n = served.spade, len(served.spade.index_)
    held_out = spade.held_out
    members = [_describe_member(one.index_.manifest) for one in spade.members]
    first = members[0].model_dump(exclude={"mirrored", "bytes"})
    return IndexAnswer(
        **first,
        **_named(served, awaited),
        images=n,
        calibrated=held_out.created if held_out else None,
        bytes=sum(member.bytes for member in members),
        k=min(spade.k, n),
        kappa=spade.kappa,
        quantile=spade.quantile_,
        score=cast(Score, spade.score),
        threshold=spade.image_threshold,
        pixel_threshold=spade.pixel_threshold,
        by_hand=spade.by_hand,
        review=spade.review,
        notes=list(spade.notes),
        members=members,
    )


def _describe_member(manifest: Manifest) -> IndexMember:
    return IndexMember(
        backbone=manifest.backbone.name,
        weights_sha256=manifest.backbone.weights_sha256,
        mirrored=manifest.mirrored,
        bytes=sum(file.bytes for file in manifest.files),
        input_width=manifest.framing.width,
        input_height=manifest.framing.height,
        cropped=manifest.framing.crop,
        levels=[
            LevelShape(height=level.height, width=level.width, channels=level.channels)
            for level in manifest.levels
        ],
    )
