"""A folder of results that goes on from run to run: what was judged is judged once."""

from __future__ import annotations

import csv
import os
import secrets
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from .._support.text import printable
from ..errors import SpadeError
from ..report.files import Row, as_csv
from ..report.folder import LEDGER, LIST, GrowingFolder, stem_candidates
from .scan import State

SCORES = "scores.csv"
_HEADER = as_csv([])
_TABLES = """
CREATE TABLE IF NOT EXISTS source (text BLOB NOT NULL, key TEXT NOT NULL);
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
    """What is known of a path: the last state and digest (None if lost), and how many rows."""

    state: State
    digest: bytes | None
    rows: int


class Ledger:
    """The results of a source that goes on, and an account of what was judged.

    `scores.csv` says what counts: an image is judged once its row is there whole. Beside it lies
    an account that also has what each file looked like. It is written first. When a process is
    killed in between, the account loses at the next start what `scores.csv` does not have. Any
    thread may use it, one at a time.

    Parameters
    ----------
    out : Path
        Made if need be.
    source : str
        Where the images come from, which stays the same.
    watched : Path, optional
        The folder that they lie in, as rows name it.

    Attributes
    ----------
    folder : GrowingFolder
        Takes the images' other files.
    key : str
        Tells these results from all others; it stays from run to run.
    mended : bool
        Whether `scores.csv` ended in a part of a row, which was removed.

    Raises
    ------
    SpadeError
        If another process writes there, or it holds the results of something else.
    """

    def __init__(self, out: Path, source: str, watched: Path | None = None) -> None:
        if out.exists() and not out.is_dir():
            raise SpadeError(f"{out} is a file; name a folder for the results")
        begun = (out / LEDGER).exists()
        for name in (LIST, SCORES):
            if not begun and (out / name).exists():
                raise SpadeError(f"{out} holds the results of another command; name another folder")
        self.folder = GrowingFolder(out)
        self._path = out / SCORES
        self._file = self._account(out)
        try:
            self.key = self._check_source(source)
            self.mended = _mend(self._path)
            self._scores = self._opened()
            self._reconcile(watched)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._scores)
        self._file.close()

    def __len__(self) -> int:
        (count,) = self._file.execute("SELECT COUNT(*) FROM images WHERE told").fetchone()
        return int(count)

    def known(self, path: str) -> Known | None:
        """Return what is known of a path; None if it was never judged."""
        row = self._file.execute(
            "SELECT size, changed, digest, (SELECT COUNT(*) FROM images WHERE path = ?1 AND told)"
            " FROM images WHERE path = ?1 ORDER BY number DESC LIMIT 1",
            (os.fsencode(path),),
        ).fetchone()
        return row and Known(State(row[0], row[1]), row[2], row[3])

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

    def add(self, judged: Sequence[Judged]) -> None:
        """Write the rows of images that were judged.

        Raises
        ------
        OSError, SpadeError
            If the disk is full, say; then `scores.csv` ends in a whole row.
        """
        self._note([one for one in judged if one.digest], told=True)
        self._append(as_csv([one.row for one in judged])[len(_HEADER) :])

    def renamed(self, judged: Judged) -> None:
        """Take note that a file that was judged has another name now, under which it has no row."""
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
        with self._writing():
            self._file.executemany(
                "INSERT INTO images (path, row, size, changed, digest, stem, told)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Have what a `with` block writes into the account counted, or none of it."""
        try:
            with self._file:
                yield
        except sqlite3.OperationalError as error:
            raise SpadeError(f"{self.folder.path / LEDGER} cannot be written: {error}") from None

    def _append(self, data: bytes) -> None:
        """Write whole rows behind the others, or none."""
        if not _is_at(self._scores, self._path):  # someone has taken the file away
            os.close(self._scores)
            self._scores = self._opened()
        before = os.fstat(self._scores).st_size
        data = data if before else _HEADER + data  # someone has emptied it
        try:
            written = os.write(self._scores, data)
            while written < len(data):
                written += os.write(self._scores, data[written:])
        except OSError as error:
            os.ftruncate(self._scores, before)
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def _opened(self) -> int:
        """Open `scores.csv` to write behind its end, its heading made if need be."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        file = os.open(self._path, flags, 0o666)
        if not os.fstat(file).st_size:
            os.write(file, _HEADER)
        return file

    def _account(self, out: Path) -> sqlite3.Connection:
        file = sqlite3.connect(out / LEDGER, timeout=1, check_same_thread=False)
        try:
            # Without shared memory, so that a network folder serves, too; and for one process.
            file.execute("PRAGMA locking_mode = EXCLUSIVE")
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("PRAGMA synchronous = NORMAL")
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

    def _check_source(self, source: str) -> str:
        """Return what the results are known by, if they are of this source."""
        text = os.fsencode(source)
        row = self._file.execute("SELECT text, key FROM source").fetchone()
        if row is None:
            row = text, secrets.token_hex(8)
            with self._file:
                self._file.execute("INSERT INTO source VALUES (?, ?)", row)
        elif row[0] != text:
            raise SpadeError(
                f"{self.folder.path} holds the results of {printable(os.fsdecode(row[0]))}; name "
                "another folder"
            )
        return str(row[1])

    def _reconcile(self, watched: Path | None) -> None:
        """Have the account hold what `scores.csv` holds, row by row of a name."""
        if watched is None:
            return  # frames come once, and have no account
        rows = _counted(self._path)
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


def _counted(path: Path) -> Counter[bytes]:
    """Return how many rows each path has."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        next(rows, None)
        return Counter(row[0].encode("utf-8", "surrogateescape") for row in rows if row)


def _is_at(file: int, path: Path) -> bool:
    """Say whether an open file is still what a path names."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
