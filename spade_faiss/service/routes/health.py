"""Whether the service is there, and takes queries."""

from __future__ import annotations

from fastapi import APIRouter

from ...answers import Health
from ..context import Common
from ..limits import Refusal
from ..openapi import problems
from ..places import ALIVE, READY

router = APIRouter()


@router.get(ALIVE, response_model=Health, summary="Alive", responses=problems(421, 422))
async def healthz() -> Health:
    """Answer as long as the service runs."""
    return Health(status="ok")


@router.get(READY, response_model=Health, summary="Ready", responses=problems(421, 422, 503))
async def readyz(resources: Common) -> Health:
    """Say whether queries are accepted."""
    if resources.state.draining:
        raise Refusal(503, "the service is shutting down", 5)
    if not resources.working:
        raise Refusal(503, "the worker has ended; start the service again")
    return Health(status="ready")
