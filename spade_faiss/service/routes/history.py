"""Results that are kept."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from ...answers import HistoryAnswer
from ...errors import SpadeError
from ...images import image_format
from ..context import Context, Shared
from ..describe import past_answer
from ..history import History
from ..limits import Refusal
from ..openapi import Access, pictures, problems
from ..past import Past, Which
from ..places import HISTORY, HISTORY_CSV, HISTORY_IMAGE, HISTORY_PICTURE

Made = TypeVar("Made")
COLUMNS = (
    *("id", "time", "index", "name", "score", "threshold", "review", "verdict", "score_of"),
    *("places", "generation", "called_good_at", "called_good_by", "remark"),
)
_AT_ONCE = 500
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula."""
_TYPES = {"PNG": "png", "JPEG": "jpeg", "BMP": "bmp", "WEBP": "webp", "TIFF": "tiff"}

Since = Annotated[
    datetime | None,
    Query(description="From this time on; without an offset, by the service's own clock."),
]
Until = Annotated[datetime | None, Query(description="Before this time.")]
Wanted = Annotated[
    Literal["OK", "REVIEW", "NG", "none"] | None,
    Query(description="Of this verdict alone; none is without a threshold."),
]
Number = Annotated[int, Query(ge=1, lt=1 << 63, description="The result's number.")]


def router(access: Access) -> APIRouter:
    """Return the places of the history."""
    made = APIRouter(dependencies=access.dependencies)
    own = access.responses
    made.get(HISTORY, response_model=HistoryAnswer, summary="Results that are kept", responses=own)(
        history
    )
    made.get(
        HISTORY_CSV,
        response_class=Response,
        summary="The same as a table",
        responses=own
        | problems(409)
        | pictures("text/csv", f"UTF-8, with a header: {', '.join(COLUMNS)}."),
    )(table)
    made.get(
        HISTORY_PICTURE,
        response_class=Response,
        summary="A result's small picture",
        responses=own | problems(404, 409) | pictures("image/jpeg", "The map over the image."),
    )(picture)
    made.get(
        HISTORY_IMAGE,
        response_class=Response,
        summary="A result's image as it was sent",
        responses=own
        | problems(404, 409)
        | {
            200: {
                "content": {f"image/{kind}": {} for kind in _TYPES.values()},
                "description": "While it is kept.",
            }
        },
    )(image)
    return made


async def history(
    context: Shared,
    since: Since = None,
    until: Until = None,
    verdict: Wanted = None,
    before: Annotated[
        int | None, Query(ge=1, lt=1 << 63, description="Older than the result of this number.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="So many at most.")] = 50,
) -> HistoryAnswer:
    """Give results of the index, the newest first, and how many there are of each verdict."""
    return await context.run(_answer, context, since, until, verdict, before, limit)


async def table(
    context: Shared, since: Since = None, until: Until = None, verdict: Wanted = None
) -> Response:
    """Give results of the index as CSV, the newest first.

    A text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    kept, which = context.feedback.history(), _which(context, since, until, verdict)
    return StreamingResponse(
        _lines(kept, which),
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": 'attachment; filename="history.csv"'},
    )


async def picture(context: Shared, id: Number) -> Response:
    """Give the anomaly map over the image, small."""
    kept = context.feedback.history()
    return Response(
        await context.run(_found, kept.picture, context.kept_as, id), media_type="image/jpeg"
    )


async def image(context: Shared, id: Number) -> Response:
    """Give the image itself, with which it can be queried again."""
    kept = context.feedback.history()
    past = await context.run(_found, kept.get, context.kept_as, id)
    data = await context.run(_found, kept.images.read, past)
    kind = _TYPES[image_format(data) or "PNG"]
    return Response(data, media_type=f"image/{kind}")


def _answer(
    context: Context,
    since: datetime | None,
    until: datetime | None,
    verdict: str | None,
    before: int | None,
    limit: int,
) -> HistoryAnswer:
    try:
        kept = context.feedback.history()
    except Refusal as refusal:
        return HistoryAnswer(
            refused=refusal.why, index=context.kept_as, counts={}, results=[], more=False
        )
    which = _which(context, since, until, verdict)
    found = kept.find(which, before=before, most=limit + 1)
    counts = {"OK": 0, "REVIEW": 0, "NG": 0, "none": 0}
    for name, count in kept.counts(_which(context, since, until, None)).items():
        counts[name or "none"] = count
    return HistoryAnswer(
        refused=None,
        index=context.kept_as,
        counts=counts,
        results=[past_answer(past) for past in found[:limit]],
        more=len(found) > limit,
    )


def _which(
    context: Context, since: datetime | None, until: datetime | None, verdict: str | None
) -> Which:
    """Return which results are asked for.

    Raises
    ------
    Refusal
        422 if a time is out of what can be told.
    """
    try:
        first, last = (time and time.astimezone(UTC) for time in (since, until))
    except (OverflowError, ValueError, OSError):
        raise Refusal(422, "since, until: no such time") from None
    return Which(context.kept_as, first, last, "" if verdict == "none" else verdict)


def _found(function: Callable[..., Made], *arguments: object) -> Made:
    """Return what a function finds, or refuse with 404."""
    try:
        return function(*arguments)
    except SpadeError as error:
        raise Refusal(404, str(error)) from None


def _lines(kept: History, which: Which) -> Iterator[str]:
    """Yield a table's lines, many at once: each piece is made in a thread."""
    yield _csv([COLUMNS])
    rows = map(_row, kept.every(which))
    while some := list(islice(rows, _AT_ONCE)):
        yield _csv(some)


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _row(past: Past) -> list[object]:
    return [
        past.id,
        past.time.isoformat(timespec="milliseconds"),
        *map(_plain, (past.index, past.name)),
        *(past.score, past.threshold, past.review, past.verdict, past.kind, past.places),
        past.generation,
        past.marked_at and past.marked_at.isoformat(timespec="milliseconds"),
        *map(_plain, (past.marked_by, past.remark)),
    ]


def _plain(text: str | None) -> str | None:
    """Return a client's text such that no spreadsheet takes it for a formula."""
    return f"'{text}" if text and text.startswith(_FORMULA) else text
