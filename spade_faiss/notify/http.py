"""Post messages over HTTP."""

from __future__ import annotations

import base64
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, quote, unquote

from .sender import RefusedError, UnreachableError
from .signature import signature

_OF_THE_MESSAGE = frozenset({400, 406, 409, 411, 413, 415, 422, 431})
"""Statuses that say of this message that it is not taken. Others are of the receiver: one that is
down, is set up wrongly, or has moved."""

_OF_AN_ADDRESS = "!#$%&'()*+,/:;=?@[]~"
"""What stays as it is, of what is no letter; % stands before what is written so already."""


class HttpSender:
    """Posts messages to one address, over one connection as long as it lasts."""

    def __init__(self, parts: SplitResult, secret: bytes | None, timeout: float) -> None:
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=timeout)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._target = quote(target, safe=_OF_AN_ADDRESS)
        self._secret = secret
        self._headers = {"Content-Type": "application/json", "User-Agent": "spade-faiss"}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"

    def send(self, identity: str, body: bytes) -> None:
        """Post a message; return once it is answered with a status of 200 to 299."""
        seconds = int(time.time())
        headers = {
            **self._headers,
            "webhook-id": identity,
            "webhook-timestamp": str(seconds),
        }
        if self._secret is not None:
            headers["webhook-signature"] = signature(self._secret, identity, seconds, body)
        kept = self._connection.sock is not None
        try:
            status = self._post(body, headers)
        except (OSError, HTTPException) as error:
            self.close()
            if not kept or isinstance(error, TimeoutError):
                raise UnreachableError(_reason(error)) from None
            try:  # the other side may have ended a connection that was long idle
                status = self._post(body, headers)
            except (OSError, HTTPException) as again:
                self.close()
                raise UnreachableError(_reason(again)) from None
        if 200 <= status < 300:
            return
        if status in _OF_THE_MESSAGE:
            raise RefusedError(f"it answers {status}")
        raise UnreachableError(f"it answers {status}")

    def _post(self, body: bytes, headers: dict[str, str]) -> int:
        self._connection.request("POST", self._target, body, headers)
        answer = self._connection.getresponse()
        answer.read(1 << 20)
        if not answer.isclosed():  # more than is worth reading
            self.close()
        return answer.status

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
