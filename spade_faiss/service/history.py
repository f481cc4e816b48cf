"""What was queried: kept in SQLite, with small pictures, and the images as they were sent.

Layout of its folder::

    history.sqlite            results, small pictures of these, and changes of indices
    images/                   images as they were sent, as long as there is room
    good/<index>/             those that somebody called good; they stay
    steps/<index>/            what `feedback` keeps of indices
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import SpadeError
from .history_file import HistoryFile
from .past import COLUMNS, Bounds, Change, Outcome, Past, Which, as_text, past_of
from .sent_images import SentImages

logger = logging.getLogger("spade_faiss")

_FILE = "history.sqlite"
_EVERY = 100
"""Results after which it is looked whether older ones have to go."""
_FULL = 0.95
"""The share of the room for images that is left taken when it is exceeded."""
_AT_ONCE = 1000
"""Results that are read at a time."""


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
        self._new = 0
        """Results since it was looked whether older ones have to go."""
        self._bytes = 0
        """Of the images in `images`."""
        self._lock = FileLock(folder / ".lock", timeout=0)
        try:
            self.images = SentImages(folder)
            self._lock.acquire()
        except Timeout:
            raise SpadeError(
                f"{folder} is the history of another service that runs; name another `history`"
            ) from None
        except OSError as error:
            raise SpadeError(f"{folder} cannot be written: {error.strerror or error}") from None
        try:
            self._file = HistoryFile(folder / _FILE)
        except SpadeError:
            self._lock.release()
            raise
        try:
            with self._file.plainly():
                self._take_stock()
        except SpadeError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; another process may have it then."""
        self._file.close()
        self._lock.release()

    # What is kept ----------------------------------------------------------------------------

    def record(self, index: str, outcomes: Sequence[Outcome]) -> list[int]:
        """Keep results of an index, and return their numbers.

        Raises
        ------
        SpadeError
            If they cannot be kept.
        """
        now, ids = as_text(datetime.now(UTC)), list[int]()
        with self._file.changing() as connection:
            for one in outcomes:
                size = self.images.size(one.image) if one.image else 0
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
        with self._file.writing:  # so that the image is not removed meanwhile
            past = self.get(index, number)
            good = self.images.keep_good(past)
            with self._file.changing() as connection:
                connection.execute(
                    "UPDATE results SET marked_at = ?, marked_by = ?, remark = ?, good = ? "
                    "WHERE id = ?",
                    (as_text(datetime.now(UTC)), person, remark, good, number),
                )
            return self.get(index, number)

    def unmark(self, index: str, number: int) -> Past:
        """Take a result's image from among the good ones.

        Raises
        ------
        SpadeError
            If there is no such result, or it is not among them.
        """
        with self._file.writing:
            past = self.get(index, number)
            if past.good is None:
                raise SpadeError(f"nobody called the image of result {number} good")
            with self._file.changing() as connection:
                connection.execute(
                    "UPDATE results SET marked_at = NULL, marked_by = NULL, remark = NULL, "
                    "good = NULL WHERE id = ?",
                    (number,),
                )
            self.images.good_place(past.good).unlink(missing_ok=True)
            return self.get(index, number)

    def note_change(self, index: str, change: Change) -> None:
        """Keep that an index was changed."""
        with self._file.changing() as connection:
            connection.execute(
                "INSERT INTO changes (time, index_name, kind, person, images, threshold_before, "
                "threshold_after, generation_before, generation_after) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(as_text(change.time), index, change.kind, change.person, change.images),
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
        found = self._file.ask(
            f"SELECT {COLUMNS} FROM results WHERE id = ? AND index_name = ?", (number, index)
        )
        if not found:
            raise SpadeError(f"there is no result {number} of {index}")
        return past_of(found[0])

    def find(self, which: Which, *, before: int | None = None, most: int = _AT_ONCE) -> list[Past]:
        """Return results, the newest first, so many at most and older than that of a number."""
        where, values = which.where()
        if before is not None:
            where, values = f"{where} AND id < ?", [*values, before]
        return [
            past_of(row)
            for row in self._file.ask(
                f"SELECT {COLUMNS} FROM results WHERE {where} ORDER BY id DESC LIMIT ?",
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
        rows = self._file.ask(
            f"SELECT verdict, COUNT(*) FROM results WHERE {where} GROUP BY verdict", values
        )
        return dict(rows)

    def marked(self, index: str) -> list[Past]:
        """Return the results of an index whose images were called good, the first first."""
        return [
            past_of(row)
            for row in self._file.ask(
                f"SELECT {COLUMNS} FROM results WHERE index_name = ? AND marked_at IS NOT NULL "
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
        data = self.images.read(past)
        for one in self.marked(past.index):
            place = self.images.good_place(one.good or "")
            with suppress(OSError):  # it was just taken from among them
                same_size = one.id != past.id and place.stat().st_size == len(data)
                if same_size and place.read_bytes() == data:
                    return one
        return None

    def passed(self, index: str, generation: str, before: float, after: float, kind: str) -> int:
        """Return how many results would be NG no more by another threshold of the same index.

        Those that were called good do not count.
        """
        ((count,),) = self._file.ask(
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
            for time, kind, person, images, before, after, generation, now in self._file.ask(
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
        ((jpeg,),) = self._file.ask("SELECT jpeg FROM pictures WHERE id = ?", (number,))
        return bytes(jpeg)

    # What has to go --------------------------------------------------------------------------

    def _take_stock(self) -> None:
        """Find what is there, after a process that may have been killed."""
        rows = self._file.ask("SELECT image, bytes FROM results WHERE image IS NOT NULL")
        self._bytes = sum(size for _, size in rows)
        self._prune()
        rows = self._file.ask("SELECT image FROM results WHERE image IS NOT NULL")
        self.images.sweep({image for (image,) in rows})

    def _prune(self) -> None:
        """Remove what is too old or too much; what was called good stays."""
        with self._file.writing, self._file.plainly():  # until the images are gone, too
            self._new = 0
            lost = self._prune_tables()
            for image in lost:
                self.images.forget(image)

    def _prune_tables(self) -> list[str]:
        """Do so in the tables; return the images that are of no result any more."""
        bounds = self.bounds
        oldest = as_text(datetime.now(UTC) - timedelta(days=bounds.days))
        with self._file.changing() as connection:
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
            numbers = [(number,) for number, _, _ in gone]
            connection.executemany("DELETE FROM results WHERE id = ?", numbers)
            connection.executemany("DELETE FROM pictures WHERE id = ?", numbers)
            connection.executemany(
                "UPDATE results SET image = NULL WHERE id = ?", [(number,) for number, _ in lost]
            )
        self._bytes = left
        return [*(image for _, image, _ in gone if image), *(image for _, image in lost)]
