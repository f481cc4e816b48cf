"""Look at what is in a folder, again and again: names, sizes and times, and no file is opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from ..images import SUFFIXES, may_be_image


@dataclass(frozen=True, slots=True)
class State:
    """What tells a file from what it was before: it changes with each write, and not by a rename.

    Attributes
    ----------
    size : int
        Bytes.
    changed : int
        When it was last written, in nanoseconds.
    """

    size: int
    changed: int


@dataclass
class Look:
    """What one look at a folder found.

    Attributes
    ----------
    files : dict of str to State
        Images, by their paths relative to the folder.
    lost : list of (str, str)
        Folders that could not be looked at, relative, and why: nothing is known of what is in them.
    passed : list of str
        Files that may be images, but have no image's suffix.
    """

    files: dict[str, State] = field(default_factory=dict)
    lost: list[tuple[str, str]] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)

    def may_hold(self, relative: str) -> bool:
        """Say whether a file that was not found may be there all the same, in a lost folder."""
        return any(not at or relative.startswith(at + os.sep) for at, _ in self.lost)


def look(folder: Path, is_passed: Callable[[str], object] = lambda relative: None) -> Look:
    """Return what a folder holds, at any depth.

    Hidden files and folders are left out: programs that copy write to these, and rename them. A
    link to a folder is followed once.

    Parameters
    ----------
    folder : Path
    is_passed : callable
        Is given each file that is passed over, relative to the folder, at every look.
    """
    found, seen = Look(), set[tuple[int, int]]()
    waiting = [("", os.fspath(folder))]
    while waiting:
        relative, path = waiting.pop()
        try:
            status = Path(path).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    _add(found, entry, os.path.join(relative, entry.name), waiting)  # noqa: PTH118
        except OSError as error:
            found.lost.append((relative, error.strerror or str(error)))
    for one in found.passed:
        is_passed(one)
    return found


def _add(
    found: Look, entry: os.DirEntry[str], relative: str, waiting: list[tuple[str, str]]
) -> None:
    """Add a file to what is found, or a folder to what is to be looked at."""
    try:
        if entry.is_dir():
            waiting.append((relative, entry.path))
        elif _suffix(entry.name) in SUFFIXES:
            status = entry.stat()
            if not S_ISREG(status.st_mode):
                return  # to open a pipe would wait for ever
            found.files[relative] = State(status.st_size, status.st_mtime_ns)
        elif may_be_image(Path(entry.name)):
            found.passed.append(relative)
    except FileNotFoundError:
        pass  # it went between two looks, or is a link that leads nowhere
    except OSError as error:
        found.lost.append((relative, error.strerror or str(error)))


def _suffix(name: str) -> str:
    return name[name.rfind(".") :].lower()
