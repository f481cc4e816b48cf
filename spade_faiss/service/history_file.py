"""The file of a history: SQLite, written by one process, read beside that."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from ..errors import SpadeError

_VERSION = 1
_APPLICATION = 0x53504144
"""By which SQLite knows the file as of this kind."""
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


class HistoryFile:
    """Tables of results, of their small pictures, and of changes of indices.

    Parameters
    ----------
    path : Path
        Made if need be, in a folder that is there.

    Raises
    ------
    SpadeError
        If it cannot be written, or is damaged or of another kind.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.writing = RLock()
        """Held while anything is changed."""
        with self.plainly():
            self._connection = self._open()

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Give the connection that writes, one at a time; all is kept, or nothing."""
        with self.writing, self.plainly():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def ask(self, question: str, values: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        """Return rows, read beside what is being written."""
        with (
            self.plainly(),
            closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)) as one,
        ):
            return one.execute(question, tuple(values)).fetchall()

    @contextmanager
    def plainly(self) -> Iterator[None]:
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
                f"{self._path.parent} cannot be written: {error.strerror or error}"
            ) from None

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
        except BaseException:
            connection.close()
            raise
        return connection
