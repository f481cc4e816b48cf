"""Find image files in folders."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import SpadeError
from .source import OnError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""What the names of image files end in, in small letters."""


@dataclass(frozen=True)
class Found:
    """An image file; `relative` is its path within `folder`, if a folder was searched for it."""

    path: Path
    relative: Path
    folder: Path | None


def find_images(
    arguments: Iterable[str | os.PathLike[str]], on_error: OnError,
    suffixes: Collection[str] = SUFFIXES,
) -> list[Found]:
    """Return the image files that the arguments name, folders searched to any depth.

    Files of one folder are in sorted order; hidden files are passed over, and so is what has
    none of the suffixes. A named file is taken whatever its suffix: decoding will tell.

    Raises
    ------
    SpadeError
        If a named file or folder does not exist.
    """
    found: list[Found] = []
    for argument in map(Path, arguments):
        if argument.is_dir():
            found += _walk(argument, on_error, suffixes)
        elif argument.exists():
            found.append(Found(argument, Path(argument.name), None))
        else:
            raise SpadeError(f"{argument}: no such file or folder")
    return found


def _walk(root: Path, on_error: OnError, suffixes: Collection[str]) -> Iterator[Found]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [name for name in folders if Path(name).suffix.lower() in suffixes]:
            on_error(str(Path(folder, name)), "is a folder with a file's name; rename it")
            folders.remove(name)
        for name in sorted(files):
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in suffixes:
                yield Found(path, path.relative_to(root), root)
