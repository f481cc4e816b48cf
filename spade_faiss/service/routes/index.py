"""The index or ensemble in service."""

from __future__ import annotations

from fastapi import APIRouter

from ...answers import IndexAnswer
from ..context import Shared
from ..describe import index_answer
from ..openapi import Access
from ..places import INDEX


def router(access: Access) -> APIRouter:
    """Return the place that describes the index."""
    made = APIRouter()
    made.add_api_route(
        INDEX,
        index,
        methods=["GET"],
        response_model=IndexAnswer,
        summary="The index in service",
        responses=access.responses,
        dependencies=access.dependencies,
    )
    return made


async def index(context: Shared) -> IndexAnswer:
    """Say what the index, or the members of the ensemble, hold; and where thresholds lie."""
    return index_answer(*await context.take())
