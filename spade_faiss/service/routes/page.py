"""The page that asks for images, the page that describes the service, and their files."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader

from ...pictures.colours import CLEAR, FULL, style_sheet
from ...report.page import text_of
from ..places import COLOURS, DOCS, PAGE, VIEWER_SCRIPT, VIEWER_STYLE

FOLDER = Path(__file__).parents[1] / "page"

router = APIRouter(include_in_schema=False)


@router.get(COLOURS)
async def colours() -> Response:
    """Give the colours of maps and verdicts, as reports have them."""
    return Response(style_sheet(), media_type="text/css")


@router.get(VIEWER_SCRIPT)
async def viewer_script() -> Response:
    """Give the viewer of pictures, as reports have it."""
    return Response(text_of("viewer.js"), media_type="text/javascript")


@router.get(VIEWER_STYLE)
async def viewer_style() -> Response:
    """Give the viewer's style sheet."""
    return Response(text_of("viewer.css"), media_type="text/css")


@router.get(PAGE, response_class=HTMLResponse)
async def page(request: Request) -> HTMLResponse:
    """Give the page that images are dropped on."""
    text = (
        _templates()
        .get_template("index.html")
        .render(clear=CLEAR, full=FULL, several=request.app.state.places.several)
    )
    return HTMLResponse(text)


@router.get(DOCS, response_class=HTMLResponse)
async def docs(request: Request) -> HTMLResponse:
    """Give the description for people to read."""
    text = (
        _templates()
        .get_template("docs.html")
        .render(
            api=request.app.openapi(),
            origin=str(request.base_url).rstrip("/"),
            base=request.app.state.places.base,
        )
    )
    return HTMLResponse(text)


@cache
def _templates() -> Environment:
    return Environment(loader=FileSystemLoader(FOLDER), autoescape=True)
