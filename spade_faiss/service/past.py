"""What a history holds: results, changes of indices, and which of them are meant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..errors import SpadeError

_MOST_DAYS = 36_500


@dataclass(frozen=True)
class Bounds:
    """How much is kept.

    Attributes
    ----------
    days : float
        After which a result goes.
    results : int
        Of which the oldest go first.
    bytes : int
        Of images as they were sent. Those that were OK go first, and of these the oldest.

    Raises
    ------
    SpadeError
        If a value is out of its range.
    """

    days: float = 30.0
    results: int = 100_000
    bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if not 0 < self.days <= _MOST_DAYS:
            raise SpadeError(
                f"a history of {self.days} days must be of more than 0, and {_MOST_DAYS} at most"
            )
        if self.results < 1 or self.bytes < 0:
            raise SpadeError("a history must keep 1 result or more, and 0 bytes of images or more")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One image's result, to be kept.

    Attributes
    ----------
    name : str
        As the client called the image.
    score, threshold, review, verdict
        As they were answered; the verdict is "" where there was no threshold.
    kind : str
        What the score is of: map, descriptor or mean.
    places : int
        That were wrong.
    generation : str
        Of the index.
    picture : bytes
        A small JPEG.
    image : str or None
        What `SentImages.keep` returned.
    """

    name: str
    score: float
    threshold: float | None
    review: float | None
    verdict: str
    kind: str
    places: int
    generation: str
    picture: bytes
    image: str | None


@dataclass(frozen=True, kw_only=True)
class Past:
    """A result that is kept.

    Attributes
    ----------
    id : int
    time : datetime
    index : str
        The name of the index.
    name, score, threshold, review, verdict, kind, places, generation
        As of an `Outcome`.
    image : str or None
        The name of the image's file, while that is kept.
    marked_at, marked_by, remark
        When the image was called good, by whom, and what they said of it.
    good : str or None
        The image's file within `good`, then.
    """

    id: int
    time: datetime
    index: str
    name: str
    score: float
    threshold: float | None
    review: float | None
    verdict: str
    kind: str
    places: int
    generation: str
    image: str | None
    marked_at: datetime | None
    marked_by: str | None
    remark: str | None
    good: str | None


COLUMNS = (
    "id, time, index_name, name, score, threshold, review, verdict, kind, places, generation, "
    "image, marked_at, marked_by, remark, good"
)
"""Of the table of results, as `past_of` takes them."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of an index that somebody made.

    Attributes
    ----------
    time : datetime
    kind : "added" or "back"
    person : str
    images : int
        That were added, or taken back.
    threshold_before, threshold_after : float or None
    generation_before, generation_after : str
    """

    time: datetime
    kind: str
    person: str
    images: int
    threshold_before: float | None
    threshold_after: float | None
    generation_before: str
    generation_after: str


@dataclass(frozen=True)
class Which:
    """Which results are meant.

    Attributes
    ----------
    index : str
        The name of their index.
    since, until : datetime or None
        From the first on, and before the second.
    verdict : str or None
        "" is of those without one.
    """

    index: str
    since: datetime | None = None
    until: datetime | None = None
    verdict: str | None = None

    def where(self) -> tuple[str, list[object]]:
        """Return it as SQL, and the values of its places."""
        terms, values = ["index_name = ?"], list[object]([self.index])
        for term, time in (("time >= ?", self.since), ("time < ?", self.until)):
            if time is not None:
                terms.append(term)
                values.append(as_text(time))
        if self.verdict is not None:
            terms.append("verdict = ?")
            values.append(self.verdict)
        return " AND ".join(terms), values


def as_text(time: datetime) -> str:
    """Return a time as the file has it, in whose order times are."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds")


def past_of(row: tuple[Any, ...]) -> Past:
    """Return the result of a row of the table, whose columns are `COLUMNS`."""
    values = dict(zip(COLUMNS.split(", "), row, strict=True))
    for name in ("time", "marked_at"):
        values[name] = values[name] and datetime.fromisoformat(values[name])
    return Past(index=values.pop("index_name"), **values)
