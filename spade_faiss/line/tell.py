"""What another program is told of a query's images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..detector import Detector
from ..notify import Notifier, identity
from ..report.files import Row

Event = dict[str, Any]
"""What is said of an image, as JSON values."""


def event_of(identity: str, row: Row, detector: Detector) -> Event:
    """Return what is said of an image.

    Parameters
    ----------
    identity : str
        What it is known by.
    row : Row
    detector : Detector
        That judged it.
    """
    return {
        "id": identity,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        **asdict(row),
        "generation": detector.manifest.generation,
    }


def tell_rows(notifier: Notifier, detector: Detector) -> Callable[[Sequence[Row]], None]:
    """Return what tells of the rows of a query, as `write_query` takes it for `on_rows`.

    A query that is begun again tells the same of a file that is the same as before.
    """

    def tell(rows: Sequence[Row]) -> None:
        notifier.put([event_of(_identity_of(row), row, detector) for row in rows])

    return tell


def _identity_of(row: Row) -> str:
    try:
        status = Path(row.path.rpartition("#")[0] or row.path).stat()
        file = status.st_size, status.st_mtime_ns
    except (OSError, ValueError):
        file = 0, 0
    return identity(row.path, *file, row.score, row.threshold, row.verdict)
