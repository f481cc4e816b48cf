"""What a request may ask for: nothing that is not described, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from fastapi import Request

from .._support.text import printable
from .limits import Refusal
from .places import ALONE, INDICES, NAMED, OWN, Places

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
    path = request.app.state.places.counted_as(request.scope["path"])
    call = request.app.openapi()["paths"].get(path, {}).get(request.method.lower())
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
    path, places = request.url.path, request.app.state.places
    if allowed:
        return f"{request.method} cannot be done at {quoted(path)}: use {allowed}"
    return f"there is no {quoted(path)}" + (_meant(path, places) or "; /docs says what there is")


def _meant(path: str, places: Places) -> str:
    """Return words that ask whether a place is meant; none if none is near."""
    if not places.several:
        own = Places(several=True).own(path)
        return f": here is one index, so use '{ALONE}{own}'" if own else nearest(path, places.all)
    if path.removeprefix(ALONE) in OWN:
        return f": here are several indices, so use {quoted(NAMED + path.removeprefix(ALONE))}"
    name = path.removeprefix(f"{INDICES}/").partition("/")[0][:_LONGEST]
    return nearest(path, [place.replace("{name}", name) for place in places.all])


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
