"""Pages that are one file: all but larger pictures inlined, and written as it is made."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path

import jinja2
from markupsafe import Markup

from .._support.files import replace_file
from .._support.text import printable
from .._support.versions import installed
from ..pictures.colours import CLEAR, FULL, STRENGTH, style_sheet

SCORE_TITLES = {
    "map": "map maximum",
    "descriptor": "descriptor distance",
    "mean": "map's power mean",
}
"""What pages call the kinds of score."""


def write_page(path: Path, template: str, **values: object) -> None:
    """Write a page from a template; an iterator among the values is gone through but once.

    The page may neither fetch anything but pictures of its own folder nor run any script but its
    own: a content security policy says so to the browser, with the script's digest. Values are
    escaped.

    Parameters
    ----------
    path : Path
    template : str
        Name of a file in `templates`.
    **values
        What the template shows.
    """
    script = text_of("viewer.js") + text_of("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = (
        _environment()
        .get_template(template)
        .generate(
            style=Markup(style_sheet() + text_of("viewer.css") + text_of("page.css")),
            script=Markup(script),
            script_digest=digest,
            made=datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z"),
            version=installed(("spade-faiss",)).get("spade-faiss", ""),
            **values,
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, _joined(parts))


def _joined(parts: Iterator[str]) -> Iterator[bytes]:
    """Yield a template's many small parts as fewer."""
    held: list[str] = []
    size = 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size > 1 << 16:
            yield "".join(held).encode()
            held, size = [], 0
    yield "".join(held).encode()


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spade_faiss.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "clear": CLEAR,
        "full": FULL,
        "strength": round(100 * STRENGTH),
        "score_titles": SCORE_TITLES,
        "beside": "",  # a folder of pictures
    }
    environment.filters |= {
        "figure": lambda value: f"{value:.4g}",
        "percent": lambda value: "–" if value is None else f"{100 * value:.1f}",
        "printable": printable,
        "sentence": lambda text: text[:1].upper() + text[1:],
    }
    return environment


def text_of(name: str) -> str:
    """Return a file of `templates`: the service's page takes the viewer's, too."""
    return (files(__package__) / "templates" / name).read_text("utf-8")


def common_folder(paths: Iterable[str]) -> str:
    """Return the folder that all paths lie in; empty if there is none, or a file has no folder."""
    folders = {os.path.dirname(path) for path in paths}  # noqa: PTH120
    try:
        return os.path.commonpath(folders)
    except ValueError:  # absolute and relative ones, or none
        return ""


def within(path: str, folder: str) -> str:
    """Return what comes after the folder in a path."""
    return path[len(folder) :].lstrip(f"/{os.sep}") if folder else path
