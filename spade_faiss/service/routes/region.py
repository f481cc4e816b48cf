"""Which part of pictures the index looks at: to be asked for, and to be changed."""

from __future__ import annotations

import base64
import io
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from PIL import Image

from ...answers import Polygon, RegionAnswer, RegionShape
from ...detector.kept import kept_picture, proposed_region, size_of_most
from ...errors import SpadeError
from ...images.region import outlines_of, read_region
from ...images.roi import Roi
from ...index import Index
from ...types import Mask
from ..context import Context, Shared
from ..limits import Limits, Refusal
from ..openapi import Access, mask_body, pictures, problems
from ..places import REGION, REGION_MASK, REGION_PICTURE, REGION_PROPOSAL
from ..uploads import Upload, count_pixels, read_body

_EVERYTHING = "the index has no region: it looks at everything"


def router(access: Access, limits: Limits) -> APIRouter:
    """Return the places of the region."""
    made = APIRouter(dependencies=access.dependencies)
    own = access.responses
    change: dict[str, Any] = {"status_code": 202, "response_model": RegionAnswer}
    made.get(
        REGION, response_model=RegionAnswer, summary="The region that is looked at", responses=own
    )(region)
    made.put(
        REGION,
        **change,
        summary="Look at another region",
        responses=own | problems(403, 408, 409, 413, 415, 503),
        openapi_extra={"requestBody": mask_body(limits)},
    )(put)
    made.delete(
        REGION, **change, summary="Look at everything", responses=own | problems(403, 409, 503)
    )(delete)
    made.get(
        REGION_MASK,
        response_class=Response,
        summary="The region as a picture",
        responses=own | problems(404) | pictures("image/png", "White is looked at."),
    )(mask)
    made.get(
        REGION_PROPOSAL,
        response_model=RegionShape,
        summary="A region that is proposed",
        responses=own,
    )(proposal)
    made.get(
        REGION_PICTURE,
        response_class=Response,
        summary="A good image as the index keeps it",
        responses=own | problems(404) | pictures("image/jpeg", "As far as the index keeps it."),
    )(picture)
    return made


async def region(context: Shared) -> RegionAnswer:
    """Say what is looked at, and what becomes of another region that was asked for."""
    return await context.run(_answer, context)


async def put(request: Request, context: Shared) -> RegionAnswer:
    """Learn to look at another region, in the background; the index before answers meanwhile."""
    context.relearning.check_editable()
    upload = Upload("the region", await _read(request, context.limits))
    await context.run(count_pixels, [upload], context.limits)
    roi = await context.run(_decode, bytes(upload.data))
    return await context.run(_begin, context, roi)


async def delete(context: Shared) -> RegionAnswer:
    """Learn to look at everything, in the background; the index before answers meanwhile."""
    return await context.run(_begin, context, None)


async def mask(context: Shared) -> Response:
    """Give the region as the index has it: a PNG, with which another index can be built."""
    roi = _roi(context)
    if roi is None:
        raise Refusal(404, _EVERYTHING)
    return Response(base64.b64decode(roi.text), media_type="image/png")


async def proposal(context: Shared) -> RegionShape:
    """Propose a region by the good images: all but plain ground. It is to be looked at first.

    Without polygons there is nothing to propose: the images show no plain ground.
    """
    proposed = await context.run(proposed_region, context.live.detector.index_)
    shape = await context.run(_shape, proposed)
    return shape.model_copy(update={"polygons": []}) if proposed.all() else shape


async def picture(
    context: Shared,
    image: Annotated[int, Query(ge=0, description="Its place in the index.")] = 0,
) -> Response:
    """Give a good image as far as the index keeps it; grey is what the crop cut off."""
    index = context.live.detector.index_
    if image >= len(index):
        raise Refusal(404, f"the index has {len(index)} images, from 0 on")
    return Response(await context.run(_jpeg, index, image), media_type="image/jpeg")


async def _read(request: Request, limits: Limits) -> bytearray:
    """Return a body that is a picture.

    Raises
    ------
    Refusal
        408 if it takes too long, 413 if it is too large, 415 if it is a form, 422 if it is empty.
    """
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise Refusal(415, "send the picture itself as the body, not a form")
    data = await read_body(request, limits)
    if not data:
        raise Refusal(422, "the body is empty: send a PNG, or use DELETE to look at everything")
    return data


def _decode(data: bytes) -> Roi:
    try:
        return Roi(read_region(data))
    except SpadeError as error:
        raise Refusal(422, str(error)) from None


def _begin(context: Context, roi: Roi | None) -> RegionAnswer:
    context.relearning.begin(roi)
    return _answer(context)


def _answer(context: Context) -> RegionAnswer:
    job, roi, index = context.relearning.job, _roi(context), context.live.detector.index_
    try:
        context.relearning.check_editable()
        refused = None
    except Refusal as refusal:
        refused = refusal.why
    height, width = size_of_most(index)
    shape = (
        RegionShape(width=width, height=height, polygons=[]) if roi is None else _shape(roi.mask)
    )
    return RegionAnswer(
        **shape.model_dump(),
        images=len(index),
        everything=roi is None,
        state=cast(Literal["idle", "learning", "failed"], job.state),
        since=job.since,
        progress=job.progress,
        problem=job.problem,
        refused=refused,
    )


def _roi(context: Context) -> Roi | None:
    return context.live.detector.index_.manifest.framing.framing().roi


def _shape(looked_at: Mask) -> RegionShape:
    polygons = [
        Polygon(corners=corners, looked_at=looked) for corners, looked in outlines_of(looked_at)
    ]
    height, width = looked_at.shape
    return RegionShape(width=width, height=height, polygons=polygons)


def _jpeg(index: Index, image: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(kept_picture(index, image)).save(data, "jpeg", quality=92)
    return data.getvalue()
