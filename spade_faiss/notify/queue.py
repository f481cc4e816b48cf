"""Messages that wait on disk until they are sent."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from ..errors import SpadeError

QUEUE = ".spade-faiss-notify"
"""What the queue is called in a folder of results."""
_REMEMBERED = 100_000
"""Messages that were sent and are known by their identity still."""
_DAY = 86400.0
_TABLES = """
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    body BLOB,
    due REAL NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS waiting ON messages (number) WHERE body IS NOT NULL;
"""


def waiting_in(folder: Path) -> int:
    """Return how many messages wait in the queue of a folder, which need not have one."""
    if not (folder / QUEUE).exists():
        return 0
    queue = Queue(folder / QUEUE)
    try:
        return queue.waiting()
    finally:
        queue.close()


@dataclass(frozen=True)
class Message:
    """A message that waits; `tries` is how often it was refused."""

    number: int
    id: str
    body: bytes
    tries: int


class Queue:
    """Messages in a file, the oldest first; one process at a time has it open.

    A message is known by its identity: one that is put again, sent or not, is there already. What
    is put outlasts the process, and a loss of power. Methods may be called from several threads.

    Parameters
    ----------
    path : Path
        Made if need be.

    Raises
    ------
    SpadeError
        If another process has it open, or the file is no queue.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self._file = sqlite3.connect(path, timeout=1, check_same_thread=False)
        try:
            # Without shared memory, so that a network folder serves, too; and for one process.
            self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")
            self._file.executescript(_TABLES)
        except sqlite3.Error as error:
            self._file.close()
            if "locked" in str(error):
                raise SpadeError(
                    f"{path.parent}: another process sends messages from there; name another folder"
                ) from None
            raise SpadeError(
                f"{path} is no queue of messages ({error}); move it away to begin a new one"
            ) from None

    def put(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Add messages, each an identity and a body; they are on disk when this returns.

        Raises
        ------
        SpadeError
            If the disk is full, say.
        """
        with self._writing():
            self._file.executemany(
                "INSERT OR IGNORE INTO messages (id, body) VALUES (?, ?)", messages
            )

    def next(self, now: float | None = None, *, behind: int = 0) -> Message | None:
        """Return the oldest message that is due, behind one of a number; None if there is none.

        One that is to wait for more than a day is due: the clock was set back meanwhile.
        """
        now = time.time() if now is None else now
        with self._lock:
            row = self._file.execute(
                "SELECT number, id, body, tries FROM messages"
                " WHERE body IS NOT NULL AND due NOT BETWEEN ? AND ? AND number > ?"
                " ORDER BY number LIMIT 1",
                (math.nextafter(now, math.inf), now + _DAY, behind),
            ).fetchone()
        return row and Message(*row)

    def sent(self, message: Message) -> None:
        """Take note that a message was sent; its identity is remembered for a time.

        Raises
        ------
        SpadeError
            As `put`.
        """
        with self._writing():
            self._file.execute(
                "UPDATE messages SET body = NULL WHERE number = ?", (message.number,)
            )
            self._file.execute(
                "DELETE FROM messages WHERE number <= ? AND body IS NULL",
                (message.number - _REMEMBERED,),
            )

    def set_aside(self, message: Message, due: float) -> None:
        """Have a message that was refused wait until a time.

        Raises
        ------
        SpadeError
            As `put`.
        """
        with self._writing():
            self._file.execute(
                "UPDATE messages SET due = ?, tries = tries + 1 WHERE number = ?",
                (due, message.number),
            )

    def waiting(self) -> int:
        """Return how many messages are not sent yet."""
        with self._lock:
            (count,) = self._file.execute(
                "SELECT COUNT(*) FROM messages WHERE body IS NOT NULL"
            ).fetchone()
        return int(count)

    def forget_sent(self) -> None:
        """Forget what was sent: the same may be put again."""
        with self._lock, self._file:
            self._file.execute("DELETE FROM messages WHERE body IS NULL")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Have what a `with` block writes be on disk after it, or none of it."""
        try:
            with self._lock, self._file:
                yield
        except sqlite3.OperationalError as error:
            raise SpadeError(f"{self._path} cannot be written: {error}") from None

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._file.close()
