"""What every request passes first: who may ask, and what browsers are told."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import time
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access_log import REQUEST_ID, AccessLog, request_id
from .context import State
from .limits import Limits, Refusal
from .metrics import Metrics
from .origins import Origins
from .places import CHANGED, OPEN, QUERY, STATIC, Places

logger = logging.getLogger("spade_faiss")

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
_LINGER = 2.0
"""Seconds for which the rest of a body is waited for."""


class Guard:
    """ASGI middleware: checks host, origin and token, drains, counts, logs, and adds headers.

    Parameters
    ----------
    app : ASGI application
    state : State
    limits : Limits
    metrics : Metrics
    places : Places
    token : str or None
        What clients must show as a bearer token; None for no check.
    hosts : collection of str or None
        Names that requests may call this host by, besides loopback addresses; None for any. A
        page of another site whose name was rebound to this address asks by its own name.
    origins : Origins
        Other sites whose pages may use the service.
    log : AccessLog or None
    """

    def __init__(
        self,
        app: ASGIApp,
        state: State,
        limits: Limits,
        metrics: Metrics,
        places: Places,
        token: str | None,
        hosts: Collection[str] | None,
        origins: Origins,
        log: AccessLog | None,
    ) -> None:
        self._app = app
        self._state = state
        self._limits = limits
        self._metrics = metrics
        self._places = places
        self._token = None if token is None else token.encode()
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._origins = origins
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, method, start = scope["path"], scope["method"], time.perf_counter()
        if method == "HEAD":  # answered like GET; the server sends no body
            scope = {**scope, "method": "GET"}
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        body = _Body(receive, headers, 2 * self._limits.bytes)
        own = {REQUEST_ID: request_id(headers), **self._origins.headers(headers.get("origin"))}
        answer = _Answer(send, body, self._state, own, start)
        shared = scope.setdefault("state", {})  # what `request.state` holds
        shared.update(request_id=own[REQUEST_ID], start=start)
        self._state.requests += 1
        try:
            await self._answer(scope, headers, body, answer)
        except Exception:
            logger.exception("the request %s for %s failed", own[REQUEST_ID], path)
            if answer.status:  # half of it is out
                raise
            await refuse(answer, Refusal(500, "something went wrong; the service's log says what"))
        finally:
            self._state.requests -= 1
            # Else a connection that is kept open would keep the index of its last request.
            context = shared.pop("context", None)
            index = context.name if context else None
            seconds = time.perf_counter() - start
            self._metrics.count_request(
                index, self._places.counted_as(path), answer.status, seconds
            )
            if self._log:
                self._log.write(
                    request_id=own[REQUEST_ID],
                    client=scope["client"][0] if scope.get("client") else None,
                    method=method,
                    path=path,
                    index=index,
                    status=answer.status,
                    seconds=seconds,
                    sent=answer.sent,
                )

    async def _answer(
        self, scope: Scope, headers: Mapping[str, str], body: _Body, answer: _Answer
    ) -> None:
        """Answer a request if it may be asked, or say why not."""
        try:
            self._check_host(headers)
            allowed = self._origins.preflight(scope["method"], headers)
            if allowed is not None:
                await _send(answer, 204, allowed, b"")
                return
            self._check(scope["path"], scope["method"], headers)
        except Refusal as refusal:
            await refuse(answer, refusal)
        else:
            await self._app(scope, body.receive, answer)

    def _check(self, path: str, method: str, headers: Mapping[str, str]) -> None:
        """Raise Refusal if a request may not be asked, or not now."""
        self._check_site(method, headers)
        if self._token is not None and path not in OPEN and not path.startswith(f"{STATIC}/"):
            self._check_token(headers, self._token)
        own = self._places.own(path)
        changes = own in CHANGED and method in ("PUT", "POST", "DELETE")
        if (own == QUERY or changes) and self._state.draining:
            raise Refusal(503, "the service is shutting down; ask another, or again later", 5)
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._limits.bytes:
            raise Refusal(
                413,
                f"the body has {length} bytes, and may have {self._limits.bytes}; "
                "send fewer or smaller images",
            )

    def _check_host(self, headers: Mapping[str, str]) -> None:
        """Raise Refusal if this host is not called so."""
        host = headers.get("host", "")
        if self._hosts is not None and not _is_called(host, self._hosts):
            raise Refusal(
                421, f"this service does not go by the name {host!r}; allow it with `allow_hosts`"
            )

    def _check_site(self, method: str, headers: Mapping[str, str]) -> None:
        """Raise Refusal if a page of another site asks that may not."""
        origin = headers.get("origin")
        foreign = (
            origin is not None
            and origin.partition("://")[2] != headers.get("host", "")
            and not self._origins.allow(origin)
        )
        if method not in ("GET", "OPTIONS") and foreign:
            raise Refusal(
                403, f"pages of {origin} may not use this: allow them with `allow_origins`"
            )

    @staticmethod
    def _check_token(headers: Mapping[str, str], token: bytes) -> None:
        """Raise Refusal if a request does not show the token."""
        kind, _, shown = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(shown.strip().encode("latin-1"), token)
        if kind.lower() != "bearer" or not same:
            refusal = Refusal(401, "send the service's token: Authorization: Bearer …")
            refusal.headers["www-authenticate"] = "Bearer"
            raise refusal


def _is_called(host: str, hosts: Collection[str]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name in hosts or ipaddress.ip_address(name).is_loopback
    except ValueError:  # neither a name that is known nor an address
        return False


async def refuse(send: Send, refusal: Refusal) -> None:
    """Send a refusal."""
    data = json.dumps({"detail": refusal.why}).encode()
    await _send(send, refusal.status, {"content-type": "application/json", **refusal.headers}, data)


async def _send(send: Send, status: int, headers: Mapping[str, str], data: bytes) -> None:
    """Send a whole answer."""
    sized = {**headers, "content-length": str(len(data))} if data else headers
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(key.encode(), value.encode()) for key, value in sized.items()],
        }
    )
    await send({"type": "http.response.body", "body": data})


class _Answer:
    """Sends an answer with the headers that all have, once the request's body is out of the way.

    Attributes
    ----------
    status : int
        Of the answer, once it is sent; 0 before.
    sent : int
        Bytes of the answer's body.
    """

    def __init__(
        self, send: Send, body: _Body, state: State, own: Mapping[str, str], start: float
    ) -> None:
        self._send = send
        self._body = body
        self._state = state
        self._own = own
        self._start = start
        self.status = 0
        self.sent = 0

    async def __call__(self, message: Message) -> None:
        """Send a message, as ASGI has it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            milliseconds = 1000 * (time.perf_counter() - self._start)
            own = {**HEADERS, **self._own, "server-timing": f"total;dur={milliseconds:.1f}"}
            if self._state.draining:
                own["connection"] = "close"
            message["headers"] = [
                *((k, v) for k, v in message.get("headers", ()) if k.decode() not in own),
                *((key.encode(), value.encode()) for key, value in own.items()),
            ]
            if self.status != 408:
                await self._body.discard()
        self.sent += len(message.get("body", b""))
        await self._send(message)


class _Body:
    """A request's body, and what is to be done with the part that nobody reads.

    A connection that is closed while data arrives is reset, and the client may lose the answer
    that says why. So the rest of a body is thrown away first, if it is not too much.
    """

    def __init__(self, receive: Receive, headers: Mapping[str, str], most: int) -> None:
        self._receive = receive
        self._most = most
        length = headers.get("content-length", "0")
        self._size = int(length) if length.isdigit() else 0
        self._whole = self._size == 0 and "transfer-encoding" not in headers
        # Who asks first whether to go on shall not be told so.
        self._asks = headers.get("expect", "").lower() == "100-continue"
        self._read = 0

    async def receive(self) -> Message:
        message: Any = await self._receive()
        self._whole = self._whole or not message.get("more_body", False)
        self._read += len(message.get("body", b""))
        return message  # type: ignore[no-any-return]

    async def discard(self) -> None:
        """Read what is left of a body, for a moment."""
        if self._size > self._most or (self._asks and not self._read):
            return
        try:
            async with asyncio.timeout(_LINGER):
                while not self._whole and self._read <= self._most:
                    await self.receive()
        except TimeoutError:
            pass
