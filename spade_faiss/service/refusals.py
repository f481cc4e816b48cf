"""How what is not done is answered: a status, and one line that says why."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .._support.text import printable
from ..errors import SpadeError
from .limits import Refusal
from .parameters import no_such_place

logger = logging.getLogger("spade_faiss")


async def _refused(_: Request, refusal: Refusal) -> JSONResponse:
    return JSONResponse({"detail": printable(refusal.why)}, refusal.status, refusal.headers)


async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    lines = (f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
    return JSONResponse({"detail": "; ".join(lines)}, 422)


async def _not_there(request: Request, error: HTTPException) -> JSONResponse:
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == 405 and headers.get("allow", "GET") == "GET":
        headers["allow"] = "GET, HEAD"  # as Guard has it
    detail = no_such_place(request, headers.get("allow"))
    return JSONResponse({"detail": detail}, error.status_code, headers)


async def _gone(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=400)


async def _failed(request: Request, error: SpadeError) -> JSONResponse:
    logger.warning("the request %s failed: %s", request.state.request_id, error)
    return JSONResponse({"detail": printable(str(error))}, 500)


HANDLERS: Mapping[Any, Any] = {
    Refusal: _refused,
    RequestValidationError: _invalid,
    HTTPException: _not_there,
    ClientDisconnect: _gone,
    SpadeError: _failed,
}
"""By the exception that an endpoint raises."""
