"""What each request is known by, and the line that is kept of it."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler

from ..errors import SpadeError

logger = logging.getLogger("spade_faiss")

REQUEST_ID = "x-request-id"
_SANE = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")


def request_id(headers: Mapping[str, str]) -> str:
    """Return the id that a request brings, if it is a sane one; else a new one."""
    given = headers.get(REQUEST_ID, "")
    return given if _SANE.fullmatch(given) else uuid.uuid4().hex


class AccessLog:
    """Keeps a line of JSON for each request.

    Parameters
    ----------
    place : path
        A file, which is begun anew when another program has moved it away; "-" is standard error.

    Raises
    ------
    SpadeError
        If the file cannot be written.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self._place = place
        self._lost = False
        try:
            self._handler: logging.Handler = (
                logging.StreamHandler(sys.stderr)
                if str(place) == "-"
                else WatchedFileHandler(place, encoding="utf-8")
            )
        except OSError as error:
            raise SpadeError(f"`access_log={place}`: {error.strerror}") from None
        self._handler.handleError = self._lose  # type: ignore[method-assign]

    def write(
        self,
        *,
        request_id: str,
        client: str | None,
        method: str,
        path: str,
        index: str | None,
        status: int,
        seconds: float,
        sent: int,
    ) -> None:
        """Keep a line; `sent` is the bytes of the answer's body."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id,
            "client": client,
            "method": method,
            "path": path,
            "index": index,
            "status": status,
            "seconds": round(seconds, 4),
            "bytes": sent,
        }
        record = logging.makeLogRecord({"msg": json.dumps(line), "levelno": logging.INFO})
        try:
            self._handler.handle(record)
        except OSError:  # it cannot be opened anew
            self._lose(record)

    def close(self) -> None:
        """Close the file."""
        self._handler.close()

    def _lose(self, record: logging.LogRecord) -> None:
        """Say once that lines are lost; requests are answered all the same."""
        if not self._lost:
            self._lost = True
            error = sys.exc_info()[1]
            why = getattr(error, "strerror", None) or error
            logger.warning("the access log %s cannot be written: %s", self._place, why)
