"""The folder of a query's results: what files are called, and what an earlier query left there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from errno import EEXIST, EILSEQ, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOTDIR
from pathlib import Path, PurePath
from threading import Lock

from .._support.files import replace_file
from ..images import Found
from ..images.video import is_video

LIST = ".spade-faiss-query"
"""Names the files that a query wrote: a line of JSON each."""
LEDGER = ".spade-faiss-line"
"""Lies in a folder of results that goes on from run to run, as that of a watched folder."""
BY_NAME = frozenset({EEXIST, EILSEQ, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOTDIR})
"""Why one file cannot be written though others can: all of them lie in its name."""
CLOSEUPS = "closeups"
"""The folder of the pictures that a report opens."""
_KINDS = ("maps", "overlays", "explain", "timelines", CLOSEUPS)
_LONGEST_SUFFIX = len(".tiff")


class ResultFolder:
    """Takes a query's files, and removes those of an earlier one before the first.

    What is removed is what stands in a list in the folder, so nothing else is. The list is kept
    while files are written, and holds a file before the file is there: a query that is killed
    leaves no file that the next does not know.

    Parameters
    ----------
    path : Path
        Made if need be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock = Lock()
        self._begun = False
        self._written: set[str] = set()

    @property
    def longest_name(self) -> int:
        """Bytes that a file's name may have here."""
        try:
            return os.pathconf(self.path, "PC_NAME_MAX")
        except (AttributeError, OSError, ValueError):  # Windows has no such call
            return 255

    def put(self, name: str, data: bytes) -> str:
        """Write a file, the folder that it is in made if need be, and return its path."""
        path = self.claim(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
        return str(path)

    def claim(self, name: str) -> Path:
        """Return the path of a file that is going to be written."""
        name = PurePath(name).as_posix()
        with self._lock:
            if not self._begun:
                discard_results(self.path)
                self._begun = True
            if name not in self._written:
                self._written.add(name)
                with (self.path / LIST).open("a", encoding="ascii") as file:
                    file.write(json.dumps(name) + "\n")
        return self.path / name

    def discard(self, name: str) -> None:
        """Remove a file that this query wrote, if it is there."""
        name = PurePath(name).as_posix()
        path = self.path / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # a name that no file can have
            if error.errno not in BY_NAME:
                raise
        with self._lock:
            self._written.discard(name)

    def finish(self) -> str | None:
        """Put the list in order; return a line if there are results that are not of this query."""
        if self._begun:
            lines = (json.dumps(name) + "\n" for name in sorted(self._written))
            replace_file(self.path / LIST, (line.encode() for line in lines))
        there = [
            self.path / "report.html",
            *(path for kind in _KINDS for path in (self.path / kind).rglob("*")),
        ]
        names = [path.relative_to(self.path).as_posix() for path in there if path.is_file()]
        others = sorted(set(names) - self._written)
        if not others:
            return None
        many = "1 file" if len(others) == 1 else f"{len(others)} files"
        return (
            f"{self.path} holds {many} that this query did not write, such as {others[0]}; "
            "remove what is no use to you, or name a new folder"
        )


class GrowingFolder(ResultFolder):
    """Takes files beside those of earlier runs, of which it removes none."""

    def claim(self, name: str) -> Path:
        """Return the path of a file that is going to be written."""
        return self.path / name


def is_of_results(folder: Path, out: Path) -> bool:
    """Say whether a folder is one of those that a query into `out` writes to."""
    return any(folder.resolve().is_relative_to((out / kind).resolve()) for kind in _KINDS)


def discard_results(folder: Path) -> None:
    """Remove the files that a query's list names, and the folders that this leaves empty.

    Raises
    ------
    OSError
        If one cannot be removed.
    """
    emptied: set[Path] = set()
    for name in _listed(folder):
        path = folder / name
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue  # it is not what was written any more
        emptied.update(folder / parent for parent in PurePath(name).parents)
    for parent in sorted(emptied - {folder}, key=lambda one: -len(one.parts)):
        try:
            parent.rmdir()
        except OSError:  # something of the user's is in it
            continue
    (folder / LIST).unlink(missing_ok=True)


def _listed(folder: Path) -> Iterator[str]:
    """Yield the names that a folder's list holds, unless they or links lead out of it."""
    try:
        lines = (folder / LIST).read_text("ascii").splitlines()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return
    for line in lines:
        try:
            name = json.loads(line)
        except ValueError:  # the end of a line that was being written
            continue
        if isinstance(name, str) and "\0" not in name:
            path = PurePath(name)
            if path.parts and (folder / path).parent.resolve().is_relative_to(folder.resolve()):
                yield name


def stems_of(images: Sequence[Found], longest: int) -> list[Path]:
    """Return for each image the path of its result files without suffix.

    No two are alike, and no image's lies in the folder of a video's frames. It is the image's own
    relative path, but where another image has it, or its name leaves no room for a suffix.

    Parameters
    ----------
    images : sequence of Found
    longest : int
        Bytes that a file's name may have.
    """
    taken: set[Path] = set()
    folders = {folder for found in images for folder in found.relative.parents}
    stems = []
    for found in images:
        moving = is_video(found.path)
        stems.append(
            next(
                stem
                for stem in stem_candidates(found.relative, longest)
                if stem not in taken and not (moving and stem in folders)
            )
        )
        taken.add(stems[-1])
    return stems


def renamed(images: Sequence[Found], stems: Sequence[Path]) -> str | None:
    """Return the line that says which images' files are not called as they are, if any's are."""
    others = [
        (found, stem)
        for found, stem in zip(images, stems, strict=True)
        if stem != found.relative.with_suffix("")
    ]
    if not others:
        return None
    found, stem = others[0]
    example = f"maps/{stem}/" if is_video(found.path) else f"maps/{stem}.tiff"
    more = f" and those of {len(others) - 1} more" if len(others) > 1 else ""
    return (
        "files called otherwise than their images, whose names are taken or too long: "
        f"{example} of {found.path}{more}"
    )


def stem_candidates(relative: Path, longest: int) -> Iterator[Path]:
    """Yield what an image's files may be called, the best first; see `stems_of`."""
    room = longest - _LONGEST_SUFFIX
    yield _shortened(relative.with_suffix(""), room)
    yield _shortened(relative, room)
    number = 2
    while True:
        yield _shortened(relative.with_name(f"{relative.name}-{number}"), room)
        number += 1


def _shortened(path: Path, room: int) -> Path:
    """Return a path whose name takes no more bytes than there is room for."""
    name = path.name
    if len(os.fsencode(name)) <= room:
        return path
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    while len(os.fsencode(name)) > room - len(digest) - 1:
        name = name[:-1]
    return path.with_name(f"{name}-{digest}")
