"""What Prometheus reads."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ..context import Common
from ..openapi import Access
from ..places import METRICS


def router(access: Access) -> APIRouter:
    """Return the place of the metrics."""
    made = APIRouter()
    made.add_api_route(
        METRICS,
        scrape,
        methods=["GET"],
        response_class=PlainTextResponse,
        summary="Metrics for Prometheus",
        responses=access.responses,
        dependencies=access.dependencies,
    )
    return made


async def scrape(resources: Common) -> Response:
    """Give requests, latency, queue, batch sizes and verdicts in Prometheus' text format."""
    # In a thread: folders are looked at, too.
    text = await resources.run(generate_latest, resources.metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
