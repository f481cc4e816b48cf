"""What a request may ask for: nothing that is not described, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from fastapi import Request

from .._support.text import printable
from .limits import Refusal
from .places import PLACES

_LONGEST = 60
"""Characters of a name that are repeated to a client."""


def check_parameters(request: Request) -> None:
    """Refuse a described request with a query parameter that its description does not have.

    The page and its files are not described, and pass over what may stand behind their names.

    Raises
    ------
    Refusal
        422, if a parameter is unknown or given twice.
    """
    path, method = request.scope["route"].path, request.method.lower()
    call = request.app.openapi()["paths"].get(path, {}).get(method)
    if call is None:
        return
    known = [one["name"] for one in call.get("parameters", ()) if one["in"] == "query"]
    seen = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            raise Refusal(
                422, f"there is no parameter {quoted(name)}" + (nearest(name, known) or _all(known))
            )
        if name in seen:
            raise Refusal(422, f"the parameter {name!r} is given twice")
        seen.add(name)


def no_such_place(request: Request, allowed: str | None) -> str:
    """Return one line that says why a path or method is not served, and what is meant perhaps."""
    path = request.url.path
    if allowed:
        return f"{request.method} cannot be done at {quoted(path)}: use {allowed}"
    return f"there is no {quoted(path)}" + (nearest(path, PLACES) or "; /docs says what there is")


def quoted(name: str) -> str:
    """Return what a client sent as a short text of one line in quotes."""
    shown = printable(name)
    return f"'{shown}'" if len(shown) <= _LONGEST else f"'{shown[:_LONGEST]}…'"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return words that ask whether one of the known names is meant; none if none is near."""
    found = get_close_matches(name.lower()[:_LONGEST], list(known), 1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _all(known: Iterable[str]) -> str:
    names = " and ".join(map(repr, known))
    return f"; there are {names}" if names else "; this request takes none"
