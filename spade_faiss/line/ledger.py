"""A folder of results that goes on from run to run: what was judged is judged once."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import StringIO
from itertools import accumulate, chain
from pathlib import Path
from typing import NamedTuple, Self

from .._support.files import sync_folder
from .._support.text import printable
from ..errors import SpadeError
from ..report.files import Row, as_csv
from ..report.folder import LEDGER, LIST, GrowingFolder, stem_candidates
from .scan import State
from .tell import Event

SCORES = "scores.csv"
_HEADER = as_csv([])
_TABLES = """
CREATE TABLE IF NOT EXISTS source (text BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS latest (start INTEGER NOT NULL, row BLOB NOT NULL, event TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    number INTEGER PRIMARY KEY,
    path BLOB NOT NULL,
    row BLOB NOT NULL,
    size INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    digest BLOB,
    stem BLOB NOT NULL,
    told INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS by_path ON images (path);
CREATE INDEX IF NOT EXISTS by_digest ON images (digest);
CREATE INDEX IF NOT EXISTS by_stem ON images (stem);
"""


Tell = Callable[[Sequence[Event]], object]
"""Is given what is said of images, in the order of their rows."""


@dataclass(frozen=True)
class Judged:
    """An image that was judged.

    Attributes
    ----------
    path : str
        Relative to the folder that is watched; or the name of a live source's frame.
    row : Row
        Of `scores.csv`.
    stem : Path
        What its files are called, without suffix.
    state : State
        What the file looked like.
    digest : bytes
        SHA-256 of the file.
    """

    path: str
    row: Row
    stem: Path
    state: State = field(default_factory=lambda: State(0, 0))
    digest: bytes = b""


@dataclass(frozen=True)
class Known:
    """What is known of a path: the last state and digest (None if lost)."""

    state: State
    digest: bytes | None


class _Latest(NamedTuple):
    """What was noted last of an image: where its row begins, the row, and what is said of it."""

    start: int
    row: bytes
    event: str


class Ledger:
    """The results of a source that goes on, and an account of what was judged.

    `scores.csv` says what counts: an image is judged once its row is there whole. Beside it lies
    an account that also has what each file looked like. It is written first, with the rows that
    are to be written and what is said of them: what a process that was killed in between said
    stays said, and gets its rows by `go_on`. What `scores.csv` has not otherwise, the account
    loses at the next start. Any thread may use it, one at a time.

    Parameters
    ----------
    out : Path
        Made if need be.
    source : str
        Where the images come from, which stays the same.
    watched : Path, optional
        The folder that they lie in, as rows name it.
    lasting : bool
        Whether what is written outlasts a loss of power, as it must where others are told of it.

    Attributes
    ----------
    folder : GrowingFolder
        Takes the images' other files.
    mended : bool
        Whether `scores.csv` ended in a part of a row, which was removed.

    Raises
    ------
    SpadeError
        If another process writes there, or it holds the results of something else.
    """

    def __init__(
        self, out: Path, source: str, watched: Path | None = None, *, lasting: bool = False
    ) -> None:
        if out.exists() and not out.is_dir():
            raise SpadeError(f"{out} is a file; name a folder for the results")
        begun = (out / LEDGER).exists()
        for name in (LIST, SCORES):
            if not begun and (out / name).exists():
                raise SpadeError(f"{out} holds the results of another command; name another folder")
        self.folder = GrowingFolder(out)
        self._path = out / SCORES
        self._lasting = lasting
        self._file = self._account(out)
        try:
            self._check_source(source)
            self.mended = _mend(self._path)
            taken_away = not self._path.exists()
            self._scores = self._opened()
            self._rest = [] if taken_away else self._without_rows()
            self._reconcile(watched)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._rest:
            with suppress(SpadeError):  # it is looked for in vain then
                self._note_latest([])
        os.close(self._scores)
        self._file.close()

    def __len__(self) -> int:
        (count,) = self._file.execute("SELECT COUNT(*) FROM images WHERE told").fetchone()
        return int(count)

    def known(self, path: str) -> Known | None:
        """Return what is known of a path; None if it was never judged."""
        row = self._file.execute(
            "SELECT size, changed, digest FROM images WHERE path = ? ORDER BY number DESC LIMIT 1",
            (os.fsencode(path),),
        ).fetchone()
        return row and Known(State(row[0], row[1]), row[2])

    def same_file(self, state: State, digest: bytes) -> list[str]:
        """Return the paths under which a file of these bytes, written then, was judged."""
        rows = self._file.execute(
            "SELECT DISTINCT path FROM images WHERE digest = ? AND size = ? AND changed = ?",
            (digest, state.size, state.changed),
        ).fetchall()
        return [os.fsdecode(path) for (path,) in rows]

    def stem(self, relative: Path, longest: int, taken: set[Path]) -> Path:
        """Return what the files of an image are called: as no other image's, in a run or before.

        An image that is written again under its name has the same.

        Parameters
        ----------
        relative : Path
        longest : int
            Bytes that a file's name may have.
        taken : set of Path
            Stems of images that are not added yet; the one that is returned is added.
        """
        path = os.fsencode(relative)
        row = self._file.execute("SELECT stem FROM images WHERE path = ?", (path,)).fetchone()
        if row:
            return Path(os.fsdecode(row[0]))
        for stem in stem_candidates(relative, longest):
            used = self._file.execute(
                "SELECT 1 FROM images WHERE stem = ? AND path != ?", (os.fsencode(stem), path)
            ).fetchone()
            if not used and stem not in taken:
                taken.add(stem)
                return stem
        raise AssertionError  # there is always another number

    def add(self, judged: Sequence[Judged], events: Sequence[Event], tell: Tell) -> None:
        """Note images that were judged, tell of them, and write their rows, in this order.

        Parameters
        ----------
        judged : sequence of Judged
        events : sequence of dict
            What is said of each, as JSON values.
        tell : callable
            Is given the events once they are noted. Of those whose rows are not written then, a
            later process is told again, by `go_on`.

        Raises
        ------
        OSError, SpadeError
            If the disk is full, say; then `scores.csv` ends in a whole row.
        """
        assert not self._rest, "what is left of before comes first"
        rows = [as_csv([one.row])[len(_HEADER) :] for one in judged]
        starts = accumulate(map(len, rows), initial=self._end())
        said = map(json.dumps, events)
        self._note_latest(
            [_Latest(*one) for one in zip(starts, rows, said, strict=False)],
            [one for one in judged if one.digest],
        )
        self._finish(events, tell)

    def go_on(self, tell: Tell) -> list[Event]:
        """Do what a process that was killed, or found the disk full, has left of its last `add`.

        Parameters
        ----------
        tell : callable
            As for `add`.

        Returns
        -------
        list of dict
            What is said of the images whose rows are written only now.

        Raises
        ------
        OSError, SpadeError
            As `add`.
        """
        events: list[Event] = [json.loads(one.event) for one in self._rest]
        if events:
            self._finish(events, tell)
        return events

    def _finish(self, events: Sequence[Event], tell: Tell) -> None:
        tell(events)
        self._append(b"".join(one.row for one in self._rest))
        self._rest = []

    def renamed(self, judged: Judged) -> None:
        """Take note that a file that was judged has another name now, under which it has no row."""
        with self._writing():
            self._note([judged], told=False)

    def touched(self, path: str, state: State, digest: bytes) -> None:
        """Take note that a file looks otherwise now, and is what it was."""
        with self._writing():
            self._file.execute(
                "UPDATE images SET size = ?, changed = ?, digest = ? WHERE number ="
                " (SELECT MAX(number) FROM images WHERE path = ?)",
                (state.size, state.changed, digest, os.fsencode(path)),
            )

    def _note(self, judged: Sequence[Judged], *, told: bool) -> None:
        rows = [
            (
                os.fsencode(one.path),
                os.fsencode(one.row.path),
                one.state.size,
                one.state.changed,
                one.digest,
                os.fsencode(one.stem),
                told,
            )
            for one in judged
        ]
        self._file.executemany(
            "INSERT INTO images (path, row, size, changed, digest, stem, told)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )

    def _note_latest(self, latest: list[_Latest], judged: Sequence[Judged] = ()) -> None:
        """Note what is judged, and which rows are written next; those of before are written."""
        with self._writing():
            self._file.execute("DELETE FROM latest")
            self._file.executemany("INSERT INTO latest VALUES (?, ?, ?)", latest)
            self._note(judged, told=True)
        self._rest = latest

    def _without_rows(self) -> list[_Latest]:
        """Return what was noted last and has no row, if `scores.csv` ends where that begins."""
        latest = map(_Latest._make, self._file.execute("SELECT * FROM latest ORDER BY rowid"))
        with self._path.open("rb") as file:
            for one in latest:
                file.seek(one.start)
                if file.read(len(one.row)) != one.row:
                    rest = [one, *latest]
                    return rest if file.seek(0, os.SEEK_END) == one.start else []
        return []

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Have what a `with` block writes into the account counted, or none of it."""
        try:
            with self._file:
                yield
        except sqlite3.OperationalError as error:
            raise SpadeError(f"{self.folder.path / LEDGER} cannot be written: {error}") from None

    def _end(self) -> int:
        """Return where the next row of `scores.csv` begins; make the file if need be."""
        if not _is_at(self._scores, self._path):  # someone has taken it away
            os.close(self._scores)
            self._scores = self._opened()
        size = os.fstat(self._scores).st_size
        return size or os.write(self._scores, _HEADER)  # someone has emptied it

    def _append(self, data: bytes) -> None:
        """Write whole rows behind the others, or none."""
        before = self._end()
        try:
            written = os.write(self._scores, data)
            while written < len(data):
                written += os.write(self._scores, data[written:])
            if self._lasting:
                os.fsync(self._scores)
        except OSError as error:
            os.ftruncate(self._scores, before)
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def _opened(self) -> int:
        """Open `scores.csv` to write behind its end, its heading made if need be."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        file = os.open(self._path, flags, 0o666)
        if not os.fstat(file).st_size:
            os.write(file, _HEADER)
            if self._lasting:
                sync_folder(self._path.parent)
        return file

    def _account(self, out: Path) -> sqlite3.Connection:
        file = sqlite3.connect(out / LEDGER, timeout=1, check_same_thread=False)
        try:
            # Without shared memory, so that a network folder serves, too; and for one process.
            file.execute("PRAGMA locking_mode = EXCLUSIVE")
            file.execute("PRAGMA journal_mode = WAL")
            file.execute(f"PRAGMA synchronous = {'FULL' if self._lasting else 'NORMAL'}")
            file.executescript(_TABLES)
        except sqlite3.Error as error:
            file.close()
            if "locked" in str(error):
                raise SpadeError(
                    f"another process writes its results to {out}; name another folder"
                ) from None
            raise SpadeError(
                f"{out / LEDGER} is damaged ({error}); name a new folder for the results"
            ) from None
        return file

    def _check_source(self, source: str) -> None:
        """Refuse results that are of another source."""
        text = os.fsencode(source)
        row = self._file.execute("SELECT text FROM source").fetchone()
        if row is None:
            with self._file:
                self._file.execute("INSERT INTO source VALUES (?)", (text,))
        elif row[0] != text:
            raise SpadeError(
                f"{self.folder.path} holds the results of {printable(os.fsdecode(row[0]))}; name "
                "another folder"
            )

    def _reconcile(self, watched: Path | None) -> None:
        """Have the account hold what `scores.csv` holds, or is to hold, row by row of a name."""
        if watched is None:
            return  # frames come once, and have no account
        rows = _counted(self._path, b"".join(one.row for one in self._rest))
        prefix = os.fsencode(watched / "_")[:-1]
        noted = Counter[bytes]()
        with self._file:
            for path, count in self._file.execute(
                "SELECT row, COUNT(*) FROM images WHERE told GROUP BY row"
            ).fetchall():
                noted[path] = count
                if count > rows[path]:
                    self._file.execute(
                        "DELETE FROM images WHERE number IN (SELECT number FROM images"
                        " WHERE row = ? AND told ORDER BY number DESC LIMIT ?)",
                        (path, count - rows[path]),
                    )
            for row, count in rows.items():
                if not row.startswith(prefix):
                    continue
                path = row.removeprefix(prefix)
                stem = os.fsencode(Path(os.fsdecode(path)).with_suffix(""))
                for _ in range(count - noted[row]):
                    self._file.execute(
                        "INSERT INTO images (path, row, size, changed, digest, stem, told)"
                        " VALUES (?, ?, -1, -1, NULL, ?, 1)",
                        (path, row, stem),
                    )


def _mend(path: Path) -> bool:
    """Cut off what follows the last whole row of a file; return whether there was something.

    A row ends with a line, unless that is within quotes. Where a loss of power took what was
    written, zeros may stand in its place.
    """
    whole = at = quotes = 0
    try:
        with path.open("rb") as file:
            for line in file:
                at += len(line)
                if b"\0" in line:
                    break
                quotes += line.count(b'"')
                if line.endswith(b"\n") and not quotes % 2:
                    whole = at
    except FileNotFoundError:
        return False
    if whole < at:
        os.truncate(path, whole)
    return whole < at


def _counted(path: Path, more: bytes) -> Counter[bytes]:
    """Return how many rows each path has, in a file and behind it."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.reader(chain(file, StringIO(more.decode("utf-8", "surrogateescape"), "")))
        next(rows, None)
        return Counter(row[0].encode("utf-8", "surrogateescape") for row in rows if row)


def _is_at(file: int, path: Path) -> bool:
    """Say whether an open file is still what a path names."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
