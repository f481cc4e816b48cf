"""Several indices: which there are, and the one that a request is for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request

from ...answers import IndicesAnswer
from ..indices import Indices
from ..openapi import Access, problems
from ..places import INDICES


def router(access: Access) -> APIRouter:
    """Return the place that lists the indices."""
    made = APIRouter()
    made.add_api_route(
        INDICES,
        indices,
        methods=["GET"],
        response_model=IndicesAnswer,
        summary="The indices in service",
        responses=access.responses | problems(503),
        dependencies=access.dependencies,
    )
    return made


async def _indices_of(request: Request) -> Indices:
    indices: Indices = request.app.state.indices
    return indices


Several = Annotated[Indices, Depends(_indices_of)]


async def indices(several: Several) -> IndicesAnswer:
    """List the indices that the folder holds: which are open, and what is wrong with others."""
    return IndicesAnswer(indices=await several.states())


async def alone(request: Request) -> None:
    """Let a request be for the one index that there is."""
    request.state.context = request.app.state.context


async def named(
    request: Request,
    several: Several,
    name: Annotated[str, Path(description="Of the index: its folder's.")],
) -> AsyncIterator[None]:
    """Let a request be for the index that it names, which is opened if need be."""
    async with several.using(name) as context:
        request.state.context = context
        yield
