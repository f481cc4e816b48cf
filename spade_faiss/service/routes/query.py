"""Query images."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from functools import partial
from typing import Annotated, cast

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from ...answers import QueryAnswer
from ...detector import Detector
from ...errors import SpadeError
from ...images import decode_image
from ...types import Score
from ..context import Shared
from ..describe import answering, image_answer
from ..limits import Limits, Refusal
from ..openapi import Access, images_body, problems
from ..pictures import MapFormat, Pixels
from ..places import QUERY
from ..recording import record
from ..uploads import Upload, count_pixels, read_uploads


def router(access: Access, limits: Limits) -> APIRouter:
    """Return the place that images are sent to."""
    made = APIRouter()
    made.add_api_route(
        QUERY,
        query,
        methods=["POST"],
        response_model=QueryAnswer,
        summary="Query images",
        responses=access.responses | problems(403, 408, 413, 415, 429, 503),
        openapi_extra={"requestBody": images_body(limits)},
        dependencies=access.dependencies,
    )
    return made


async def query(
    request: Request,
    context: Shared,
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
    full: Annotated[
        bool,
        Query(
            description="Of pictures, send the image at its own resolution, of 40 megapixels at "
            "most, not small."
        ),
    ] = False,
) -> Response:
    """Score images, and say where they are wrong and what the places should look like."""
    run, admission = context.run, context.admission
    with ExitStack() as held:
        held.enter_context(admission.enter(1))  # a body takes room before its end is known
        uploads = await read_uploads(request, context.limits)
        pixels = await run(count_pixels, uploads, context.limits)
        held.enter_context(admission.enter(len(uploads) - 1, pixels))
        keep = context.history is not None
        decoded = await asyncio.gather(*(run(_decode, one, keep) for one in uploads))
        # All images of a request are for one index, whatever comes meanwhile.
        served, awaited = await context.take()
        detector = served.detector
        for upload, (image, _) in zip(uploads, decoded, strict=True):
            _check_size(upload, image, detector)
        results = await context.query(served, [image for image, _ in decoded])
        describe = partial(image_answer, maps=maps, with_pictures=pictures, full=full)
        answers = await asyncio.gather(
            *(
                run(describe, upload.name, notes, detector, result)
                for upload, (_, notes), result in zip(uploads, decoded, results, strict=True)
            )
        )
        for answer in answers:
            context.metrics.count_verdict(answer.verdict)
            if answer.threshold:
                context.metrics.count_share(answer.score / answer.threshold)
        await run(context.drifting.add, detector, results)
        if context.history is not None:
            kept = context.history, context.kept_as
            await run(record, *kept, served, uploads, results, answers)
        whole = QueryAnswer(
            **answering(served, awaited),
            request_id=request.state.request_id,
            seconds=time.perf_counter() - request.state.start,
            score=cast(Score, detector.score),
            images=answers,
        )
        return Response(await run(whole.model_dump_json), media_type="application/json")


def _check_size(upload: Upload, image: Pixels, detector: Detector) -> None:
    """Refuse an image of a size that an index cannot take.

    It is smaller than the index's tiled pictures, or has another aspect than its region.
    """
    try:
        for member in detector.members:
            framing = member.index_.manifest.framing.framing()
            framing.seen(image.shape[0], image.shape[1])
            framing.shown((image.shape[0], image.shape[1]))
    except SpadeError as error:
        raise Refusal(422, f"{upload.name}: {error}") from None


def _decode(upload: Upload, keep: bool) -> tuple[Pixels, list[str]]:  # noqa: FBT001 - for `run`
    """Return an image, and what is noted of it; its file goes unless it is to be kept."""
    notes: list[str] = []
    try:
        return decode_image(upload.data, notes.append), notes
    except SpadeError as error:
        raise Refusal(422, f"{upload.name}: {error}") from None
    finally:
        if not keep:
            upload.data = bytearray()
