"""What the description of the service says of bodies, of refusals, and of the token."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastapi import Depends
from fastapi.params import Depends as Dependency
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from ..answers import Problem
from .limits import Limits
from .uploads import ANYTHING, PART

TITLE = "spade-faiss"
ABOUT = (
    "Says which image is wrong, where, and which good patch it should resemble. A parameter that "
    "is not described here, or is given twice, is refused (422)."
)
Responses = dict[int | str, dict[str, Any]]

_TYPES = ("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/webp")
_WHY = {
    401: "The token is missing or wrong.",
    403: "A page of another site asks, or the service does not change its index.",
    404: "There is nothing of the kind.",
    408: "The body takes too long to arrive.",
    409: "It cannot be done now: nothing of the kind is kept, or the index is being changed.",
    413: "More bytes, pixels or images than the limits allow.",
    415: "No body of the kind that is described, or a file that is no image.",
    421: "The host is called by a name that is not allowed.",
    422: "A parameter is unknown, given twice or wrong, or the form or an image is damaged.",
    429: "The queue is full; Retry-After says when to try again.",
    503: "The service is shutting down or not ready.",
}


class Access(NamedTuple):
    """How a place that may need the token is described; `Guard` checks the token itself."""

    responses: Responses
    dependencies: list[Dependency]


def access(*, token: bool) -> Access:
    """Return the description of places that need the token, if there is one."""
    if not token:
        return Access(problems(421, 422), [])
    return Access(problems(401, 421, 422), [Depends(HTTPBearer(auto_error=False))])


def problems(*statuses: int) -> Responses:
    """Return the description of refusals with these statuses."""
    return {status: {"model": Problem, "description": _WHY[status]} for status in statuses}


def pictures(kind: str, description: str) -> Responses:
    """Return the description of an answer that is a picture."""
    return {200: {"content": {kind: {}}, "description": description}}


def mask_body(limits: Limits) -> dict[str, Any]:
    """Return the description of a body that is a picture of a region."""
    schema = {
        "type": "string",
        "format": "binary",
        "description": f"A picture of the images' aspect, of at most {limits.pixels:,} pixels. "
        "What is white, brighter than 127 of 255, is looked at.",
    }
    return {"required": True, "content": {"image/png": {"schema": schema}}}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the description of a body that is JSON."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"required": True, "content": content}


def images_body(limits: Limits) -> dict[str, Any]:
    """Return the description of a body that holds images."""
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
    one = {
        "type": "string",
        "format": "binary",
        "description": "One image, whose name Content-Disposition may tell.",
    }
    return {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": schema,
                "encoding": {PART: {"contentType": ", ".join(_TYPES)}},
            },
            **{kind: {"schema": one} for kind in (*_TYPES, ANYTHING)},
        },
    }
