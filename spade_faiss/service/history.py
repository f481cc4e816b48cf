"""What was queried: kept in SQLite, with small pictures, and the images as they were sent.

Layout of its folder::

    history.sqlite            results, small pictures of these, and changes of indices
    images/                   images as they were sent, as long as there is room
    good/<index>/             those that somebody called good; they stay
    steps/<index>/            what `feedback` keeps of indices
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import Any

from filelock import FileLock, Timeout

from .._support.files import link_or_copy, sync_folder
from ..errors import SpadeError
from ..images import image_format

logger = logging.getLogger("spade_faiss")

_FILE = "history.sqlite"
_VERSION = 1
_APPLICATION = 0x53504144
"""By which SQLite knows the file as of this kind."""
_SUFFIXES = {"PNG": "png", "JPEG": "jpg", "BMP": "bmp", "WEBP": "webp", "TIFF": "tiff"}
_EVERY = 100
"""Results after which it is looked whether older ones have to go."""
_FULL = 0.95
"""The share of the room for images that is left taken when it is exceeded."""
_AT_ONCE = 1000
"""Results that are read at a time."""
_MOST_DAYS = 36_500
_LONGEST = 40
"""Characters of a client's file name that a file keeps."""
_TABLES = """
CREATE TABLE results (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,
    index_name TEXT NOT NULL,
    name TEXT NOT NULL,
    score REAL NOT NULL,
    threshold REAL,
    review REAL,
    verdict TEXT NOT NULL,
    kind TEXT NOT NULL,
    places INTEGER NOT NULL,
    generation TEXT NOT NULL,
    image TEXT,
    bytes INTEGER NOT NULL DEFAULT 0,
    marked_at TEXT,
    marked_by TEXT,
    remark TEXT,
    good TEXT
);
CREATE INDEX by_time ON results (index_name, time);
CREATE INDEX by_mark ON results (index_name, marked_at) WHERE marked_at IS NOT NULL;
CREATE INDEX by_image ON results ((verdict <> 'OK'), id) WHERE image IS NOT NULL;
CREATE TABLE pictures (id INTEGER PRIMARY KEY, jpeg BLOB NOT NULL);
CREATE TABLE changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,
    index_name TEXT NOT NULL,
    kind TEXT NOT NULL,
    person TEXT NOT NULL,
    images INTEGER NOT NULL,
    threshold_before REAL,
    threshold_after REAL,
    generation_before TEXT NOT NULL,
    generation_after TEXT NOT NULL
);
"""


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
        What `keep_image` returned.
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


_COLUMNS = (
    "id, time, index_name, name, score, threshold, review, verdict, kind, places, generation, "
    "image, marked_at, marked_by, remark, good"
)


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
                values.append(_text(time))
        if self.verdict is not None:
            terms.append("verdict = ?")
            values.append(self.verdict)
        return " AND ".join(terms), values


class History:
    """Results in one file that one process writes; whatever ends that, what was kept is there.

    Parameters
    ----------
    folder : Path
        Made if need be.
    bounds : Bounds, optional

    Raises
    ------
    SpadeError
        If another process has it, it cannot be written, or its file is damaged or of another kind.
    """

    def __init__(self, folder: Path, bounds: Bounds | None = None) -> None:
        self.folder = folder
        self.bounds = bounds or Bounds()
        self._path = folder / _FILE
        self._images = folder / "images"
        self._writing = RLock()
        self._new = 0
        """Results since it was looked whether older ones have to go."""
        self._bytes = 0
        self._lock = FileLock(folder / ".lock", timeout=0)
        try:
            self._images.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise SpadeError(
                f"{folder} is the history of another service that runs; name another `history`"
            ) from None
        except OSError as error:
            raise SpadeError(f"{folder} cannot be written: {error.strerror or error}") from None
        try:
            with self._plainly():
                self._connection = self._open()
                self._prune()
                self._sweep()
        except SpadeError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; another process may have it then."""
        if hasattr(self, "_connection"):
            self._connection.close()
        self._lock.release()

    # What is kept ----------------------------------------------------------------------------

    def keep_image(self, data: bytes | bytearray) -> str:
        """Keep an image as it was sent, and return what `Outcome` calls it.

        Raises
        ------
        SpadeError
            If it cannot be written.
        """
        name = f"{secrets.token_hex(8)}.{_SUFFIXES[image_format(data) or 'PNG']}"
        try:
            (self._images / name).write_bytes(data)
        except OSError as error:
            (self._images / name).unlink(missing_ok=True)
            raise SpadeError(
                f"{self.folder} cannot be written: {error.strerror or error}"
            ) from None
        return name

    def forget_image(self, name: str) -> None:
        """Remove an image that came to no result."""
        (self._images / name).unlink(missing_ok=True)

    def record(self, index: str, outcomes: Sequence[Outcome]) -> list[int]:
        """Keep results of an index, and return their numbers.

        Raises
        ------
        SpadeError
            If they cannot be kept.
        """
        now, ids = _text(datetime.now(UTC)), list[int]()
        with self._changing() as connection:
            for one in outcomes:
                size = (self._images / one.image).stat().st_size if one.image else 0
                row = connection.execute(
                    "INSERT INTO results (time, index_name, name, score, threshold, review, "
                    "verdict, kind, places, generation, image, bytes) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
                    (
                        *(now, index, one.name, one.score, one.threshold, one.review, one.verdict),
                        *(one.kind, one.places, one.generation, one.image, size),
                    ),
                ).fetchone()
                ids.append(row[0])
                self._bytes += size
                connection.execute("INSERT INTO pictures VALUES (?, ?)", (row[0], one.picture))
        self._new += len(ids)
        if self._new >= _EVERY or self._bytes > self.bounds.bytes:
            try:
                with self._writing, self._plainly():
                    self._prune()
            except SpadeError as error:  # the results are kept all the same
                logger.warning("what is too old is not removed: %s", error)
        return ids

    def mark(self, index: str, number: int, person: str, remark: str) -> Past:
        """Keep a result's image among the good ones, with who says so.

        Raises
        ------
        SpadeError
            If there is no such result, its image is kept no more, or it cannot be written.
        """
        with self._writing:  # so that the image is not removed meanwhile
            past = self.get(index, number)
            if past.image is None and past.good is None:
                raise SpadeError(f"the image of result {number} is kept no more: send it again")
            good = past.good or f"{index}/{_file_name(past)}"
            place = self.folder / "good" / good
            try:
                if past.image is not None and not place.exists():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    link_or_copy(self._images / past.image, place)
                    with place.open("rb+") as file:
                        os.fsync(file.fileno())
                    sync_folder(place.parent)
            except OSError as error:
                raise SpadeError(f"{place} cannot be written: {error.strerror or error}") from None
            with self._changing() as connection:
                connection.execute(
                    "UPDATE results SET marked_at = ?, marked_by = ?, remark = ?, good = ? "
                    "WHERE id = ?",
                    (_text(datetime.now(UTC)), person, remark, good, number),
                )
            return self.get(index, number)

    def unmark(self, index: str, number: int) -> Past:
        """Take a result's image from among the good ones.

        Raises
        ------
        SpadeError
            If there is no such result, or it is not among them.
        """
        with self._writing:
            past = self.get(index, number)
            if past.good is None:
                raise SpadeError(f"nobody called the image of result {number} good")
            with self._changing() as connection:
                connection.execute(
                    "UPDATE results SET marked_at = NULL, marked_by = NULL, remark = NULL, "
                    "good = NULL WHERE id = ?",
                    (number,),
                )
            (self.folder / "good" / past.good).unlink(missing_ok=True)
            return self.get(index, number)

    def note_change(self, index: str, change: Change) -> None:
        """Keep that an index was changed."""
        with self._changing() as connection:
            connection.execute(
                "INSERT INTO changes (time, index_name, kind, person, images, threshold_before, "
                "threshold_after, generation_before, generation_after) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(_text(change.time), index, change.kind, change.person, change.images),
                    *(change.threshold_before, change.threshold_after),
                    *(change.generation_before, change.generation_after),
                ),
            )

    # What was kept ---------------------------------------------------------------------------

    def get(self, index: str, number: int) -> Past:
        """Return a result of an index.

        Raises
        ------
        SpadeError
            If there is none of this number.
        """
        found = self._ask(
            f"SELECT {_COLUMNS} FROM results WHERE id = ? AND index_name = ?", (number, index)
        )
        if not found:
            raise SpadeError(f"there is no result {number} of {index}")
        return _past(found[0])

    def find(self, which: Which, *, before: int | None = None, most: int = _AT_ONCE) -> list[Past]:
        """Return results, the newest first, so many at most and older than that of a number."""
        where, values = which.where()
        if before is not None:
            where, values = f"{where} AND id < ?", [*values, before]
        return [
            _past(row)
            for row in self._ask(
                f"SELECT {_COLUMNS} FROM results WHERE {where} ORDER BY id DESC LIMIT ?",
                (*values, most),
            )
        ]

    def every(self, which: Which) -> Iterator[Past]:
        """Yield results, the newest first."""
        before = None
        while found := self.find(which, before=before):
            yield from found
            before = found[-1].id

    def counts(self, which: Which) -> dict[str, int]:
        """Return how many results there are, by verdict."""
        where, values = which.where()
        rows = self._ask(
            f"SELECT verdict, COUNT(*) FROM results WHERE {where} GROUP BY verdict", values
        )
        return dict(rows)

    def marked(self, index: str) -> list[Past]:
        """Return the results of an index whose images were called good, the first first."""
        return [
            _past(row)
            for row in self._ask(
                f"SELECT {_COLUMNS} FROM results WHERE index_name = ? AND marked_at IS NOT NULL "
                "ORDER BY marked_at, id",
                (index,),
            )
        ]

    def twin(self, past: Past) -> Past | None:
        """Return another result that was called good whose image is the same file, if any.

        Raises
        ------
        SpadeError
            If the image is kept no more.
        """
        data = self.image(past)
        for one in self.marked(past.index):
            place = self.folder / "good" / (one.good or "")
            with suppress(OSError):  # it was just taken from among them
                same_size = one.id != past.id and place.stat().st_size == len(data)
                if same_size and place.read_bytes() == data:
                    return one
        return None

    def passed(self, index: str, generation: str, before: float, after: float, kind: str) -> int:
        """Return how many results would be NG no more by another threshold of the same index.

        Those that were called good do not count.
        """
        ((count,),) = self._ask(
            "SELECT COUNT(*) FROM results WHERE index_name = ? AND generation = ? AND kind = ? AND "
            "verdict = 'NG' AND marked_at IS NULL AND score > ? AND score <= ?",
            (index, generation, kind, before, after),
        )
        return int(count)

    def changes(self, index: str, most: int = 20) -> list[Change]:
        """Return the last changes of an index, the newest first."""
        return [
            Change(
                time=datetime.fromisoformat(time),
                kind=kind,
                person=person,
                images=images,
                threshold_before=before,
                threshold_after=after,
                generation_before=generation,
                generation_after=now,
            )
            for time, kind, person, images, before, after, generation, now in self._ask(
                "SELECT time, kind, person, images, threshold_before, threshold_after, "
                "generation_before, generation_after FROM changes WHERE index_name = ? "
                "ORDER BY id DESC LIMIT ?",
                (index, most),
            )
        ]

    def picture(self, index: str, number: int) -> bytes:
        """Return a result's small picture, a JPEG file.

        Raises
        ------
        SpadeError
            If there is no result of this number.
        """
        self.get(index, number)
        ((jpeg,),) = self._ask("SELECT jpeg FROM pictures WHERE id = ?", (number,))
        return bytes(jpeg)

    def image(self, past: Past) -> bytes:
        """Return a result's image as it was sent.

        Raises
        ------
        SpadeError
            If it is kept no more.
        """
        for name in (past.good and f"good/{past.good}", past.image and f"images/{past.image}"):
            try:
                if name:
                    return (self.folder / name).read_bytes()
            except OSError:
                continue
        raise SpadeError(f"the image of result {past.id} is kept no more: send it again")

    # The file --------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, check_same_thread=False, isolation_level=None, timeout=10
        )
        try:
            kind, version, tables = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("application_id", "user_version", "schema_version")
            )
            if (tables and kind != _APPLICATION) or version > _VERSION:
                raise SpadeError(
                    f"{self._path} is of another kind or of a newer version; name another `history`"
                )
            # After a kill all is there that was answered; a loss of power may take the last moment.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if not tables:
                connection.executescript(
                    f"BEGIN; PRAGMA application_id = {_APPLICATION}; "
                    f"PRAGMA user_version = {_VERSION}; {_TABLES} COMMIT;"
                )
            ((problem, *_), *_) = connection.execute("PRAGMA quick_check(1)").fetchall()
            if problem != "ok":
                raise sqlite3.DatabaseError(problem.splitlines()[-1])
            ((size,),) = connection.execute(
                "SELECT COALESCE(SUM(bytes), 0) FROM results WHERE image IS NOT NULL"
            ).fetchall()
            self._bytes = int(size)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Give the connection that writes, one at a time; all is kept, or nothing."""
        with self._writing, self._plainly():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _ask(self, question: str, values: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        """Return rows, read beside what is being written."""
        with (
            self._plainly(),
            closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)) as one,
        ):
            return one.execute(question, tuple(values)).fetchall()

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Say in one line what is wrong with the file."""
        try:
            yield
        except sqlite3.Error as error:
            operational = isinstance(error, sqlite3.OperationalError)
            raise SpadeError(
                f"{self._path} cannot be used: {error}"
                if operational
                else f"{self._path} is damaged ({error}): move it away, and a new one is begun"
            ) from None
        except OSError as error:
            raise SpadeError(
                f"{self.folder} cannot be written: {error.strerror or error}"
            ) from None

    def _prune(self) -> None:
        """Remove what is too old or too much; what was called good stays."""
        self._new = 0
        connection, bounds = self._connection, self.bounds
        oldest = _text(datetime.now(UTC) - timedelta(days=bounds.days))
        last = connection.execute(
            "SELECT id FROM results ORDER BY id DESC LIMIT 1 OFFSET ?", (bounds.results,)
        ).fetchone()
        gone = connection.execute(
            "SELECT id, image, bytes FROM results "
            "WHERE marked_at IS NULL AND (time < ? OR id <= ?)",
            (oldest, last[0] if last else 0),
        ).fetchall()
        left = self._bytes - sum(size for _, image, size in gone if image)
        lost, already = [], {number for number, _, _ in gone}
        room = bounds.bytes if left <= bounds.bytes else _FULL * bounds.bytes
        for number, image, size in connection.execute(
            "SELECT id, image, bytes FROM results WHERE image IS NOT NULL "
            "ORDER BY (verdict <> 'OK'), id"
        ):
            if left <= room:
                break
            if number not in already:
                lost.append((number, image))
                left -= size
        connection.execute("BEGIN IMMEDIATE")
        try:
            numbers = [(number,) for number, _, _ in gone]
            connection.executemany("DELETE FROM results WHERE id = ?", numbers)
            connection.executemany("DELETE FROM pictures WHERE id = ?", numbers)
            connection.executemany(
                "UPDATE results SET image = NULL WHERE id = ?", [(number,) for number, _ in lost]
            )
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        self._bytes = left
        for image in (*(image for _, image, _ in gone if image), *(image for _, image in lost)):
            self.forget_image(image)

    def _sweep(self) -> None:
        """Remove images that a process which was killed kept for results that it never had."""
        known = {
            image
            for (image,) in self._connection.execute(
                "SELECT image FROM results WHERE image IS NOT NULL"
            )
        }
        for path in self._images.iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)


def _text(time: datetime) -> str:
    """Return a time as the file has it, in whose order times are."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds")


def _past(row: tuple[Any, ...]) -> Past:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    for name in ("time", "marked_at"):
        values[name] = values[name] and datetime.fromisoformat(values[name])
    return Past(index=values.pop("index_name"), **values)


def _file_name(past: Past) -> str:
    """Return what a good image's file is called: by what the client called it, and like no other.

    Indices know their images by such names.
    """
    assert past.image is not None
    token, suffix = past.image.split(".")
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(past.name).stem)[:_LONGEST].strip("-")
    return f"{past.id}-{token[:8]}-{plain or 'image'}.{suffix}"
