"""Pages of other sites that may use the service: what browsers ask, and what they are told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from ..errors import SpadeError

ANY = "*"
_PORTS = {"http": 80, "https": 443}
_METHODS = "GET, HEAD, POST, PUT, DELETE"
_SENT = "Authorization, Content-Disposition, Content-Type, X-Request-ID"
_SHOWN = "Retry-After, Server-Timing, X-Request-ID"
_KEPT = 600
"""Seconds for which a browser may go by what it was told."""


class Origins:
    """The origins whose pages may use the service.

    A browser sends a page's requests, but shows it an answer only if that allows the page's
    origin; what changes something, or shows the token, it asks about first. The token comes from
    the page itself: no cookie is ever taken for it, so none is allowed for.

    Parameters
    ----------
    allowed : collection of str
        Each as a browser names it, `https://line.example:8443`; or "*" for all.
    token : bool
        Whether the service asks for a token.

    Raises
    ------
    SpadeError
        If one is no origin, or all are allowed though there is no token.
    """

    def __init__(self, allowed: Collection[str], *, token: bool) -> None:
        if ANY in allowed and not token:
            raise SpadeError(
                "`allow_origin=*` lets every page that a browser here opens use the service: give "
                "a `token`, too, or name the pages' origins"
            )
        self._any = ANY in allowed
        self._allowed = {_origin(one) for one in allowed if one != ANY}

    def allow(self, origin: str | None) -> bool:
        """Say whether pages of an origin, as a browser names it, may use the service."""
        return origin is not None and (self._any or origin in self._allowed)

    def headers(self, origin: str | None) -> dict[str, str]:
        """Return what an answer tells a browser."""
        if not self._any and not self._allowed:
            return {}
        told = {"vary": "Origin"}
        if self.allow(origin):
            told["access-control-allow-origin"] = origin or ""
            told["access-control-expose-headers"] = _SHOWN
        return told

    def preflight(self, method: str, headers: Mapping[str, str]) -> dict[str, str] | None:
        """Return what a browser is told that asks whether a page may do something.

        None if that is not what is asked. It never shows a token.
        """
        asks = method == "OPTIONS" and "access-control-request-method" in headers
        if not asks or not self.allow(headers.get("origin")):
            return None
        return {
            "access-control-allow-methods": _METHODS,
            "access-control-allow-headers": _SENT,
            "access-control-max-age": str(_KEPT),
        }


def _origin(text: str) -> str:
    """Return an origin as browsers write it."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        host = host if ":" in host else host.encode("idna").decode()
    except ValueError:  # UnicodeError is one
        parts, host, port = urlsplit(""), "", None
    rest = parts.path or parts.query or parts.fragment or parts.username
    if parts.scheme not in _PORTS or not host or rest:
        raise SpadeError(
            f"`allow_origin={text}` is no origin: write https://HOST or https://HOST:PORT, without "
            "a path, or * for all"
        )
    shown = f"[{host}]" if ":" in host else host
    default = port is None or port == _PORTS[parts.scheme]
    return f"{parts.scheme}://{shown}" + ("" if default else f":{port}")
