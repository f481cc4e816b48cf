"""Images that were called good, to be added to the index."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Query, Request

from ...answers import (
    Adding,
    AddingPreview,
    FeedbackAnswer,
    IndexChange,
    Mark,
    PastResult,
    SteppingBack,
)
from ..context import Context, Shared
from ..describe import past_answer
from ..limits import Limits, Refusal
from ..openapi import Access, json_body, problems
from ..past import Change
from ..places import FEEDBACK, FEEDBACK_ADD, FEEDBACK_BACK, FEEDBACK_PREVIEW
from ..uploads import read_json

State = Literal["idle", "trying", "adding", "returning", "failed"]


def router(access: Access, limits: Limits) -> APIRouter:
    """Return the places of what was called good."""
    made = APIRouter(dependencies=access.dependencies)
    own = access.responses
    step: dict[str, Any] = {"status_code": 202, "response_model": FeedbackAnswer}
    with_body = own | problems(403, 408, 409, 413, 415, 503)
    made.get(FEEDBACK, response_model=FeedbackAnswer, summary="Images called good", responses=own)(
        feedback
    )
    made.post(
        FEEDBACK,
        response_model=PastResult,
        summary="This was good",
        responses=with_body | problems(404),
        openapi_extra={"requestBody": json_body(Mark)},
    )(mark)
    made.delete(
        FEEDBACK,
        response_model=PastResult,
        summary="This was not good after all",
        responses=own | problems(403, 404, 409, 503),
    )(unmark)
    made.post(
        FEEDBACK_PREVIEW,
        **step,
        summary="Try what adding them changes",
        responses=own | problems(403, 409, 503),
    )(preview)
    made.post(
        FEEDBACK_ADD,
        **step,
        summary="Add them",
        responses=with_body,
        openapi_extra={"requestBody": json_body(Adding)},
    )(add)
    made.post(
        FEEDBACK_BACK,
        **step,
        summary="One step back",
        responses=with_body,
        openapi_extra={"requestBody": json_body(SteppingBack)},
    )(back)
    return made


async def feedback(context: Shared) -> FeedbackAnswer:
    """Give the images that were called good and are not in the index, and what becomes of them."""
    return await context.run(_answer, context)


async def mark(request: Request, context: Shared) -> PastResult:
    """Keep the image of a result in a queue, for the person in charge to look through."""
    wanted = await read_json(request, Mark, context.limits)
    return past_answer(
        await context.run(
            context.feedback.mark, wanted.id, wanted.by.strip(), wanted.remark.strip()
        )
    )


async def unmark(
    context: Shared,
    id: Annotated[int, Query(ge=1, lt=1 << 63, description="The result's number.")],
) -> PastResult:
    """Take an image off the queue."""
    return past_answer(await context.run(context.feedback.unmark, id))


async def preview(context: Shared) -> FeedbackAnswer:
    """Find, in the background, what the index becomes if all images of the queue are added."""
    await context.run(context.feedback.begin_preview)
    return await context.run(_answer, context)


async def add(request: Request, context: Shared) -> FeedbackAnswer:
    """Put the index that was tried in service; the index before answers until it is."""
    wanted = await read_json(request, Adding, context.limits)
    await context.run(context.feedback.begin_adding, wanted.generation, wanted.by.strip())
    return await context.run(_answer, context)


async def back(request: Request, context: Shared) -> FeedbackAnswer:
    """Put the index as it was before the last adding in service; its images are in the queue again.

    What was changed of its thresholds since goes.
    """
    wanted = await read_json(request, SteppingBack, context.limits)
    await context.run(context.feedback.begin_return, wanted.by.strip())
    return await context.run(_answer, context)


def _answer(context: Context) -> FeedbackAnswer:
    own = context.feedback
    try:
        own.check()
        refused = None
    except Refusal as refusal:
        refused = refusal.why
    job, kept = own.job, context.history
    found, step = own.preview() if kept else None, own.step() if kept else None
    return FeedbackAnswer(
        refused=refused,
        state=cast(State, job.state),
        since=job.since,
        progress=job.progress,
        problem=job.problem,
        queue=[past_answer(past) for past in own.queue()] if kept else [],
        preview=None
        if found is None
        else AddingPreview(**{n: v for n, v in asdict(found).items() if n != "instead_of"}),
        step=None if step is None else _change(step),
        changes=[_change(one) for one in kept.changes(context.kept_as)] if kept else [],
    )


def _change(change: Change) -> IndexChange:
    values = asdict(change)
    return IndexChange(by=values.pop("person"), **values)
