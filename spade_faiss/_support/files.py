"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

_LONG = 64
"""Bytes; file systems allow for 255, and some for no more than 143."""


_ATTEMPTS = 20 if sys.platform == "win32" else 1
"""At a rename. Windows replaces no file that is open, as readers have a manifest for a moment."""
_PAUSE = 0.05
"""Seconds between two attempts."""


def replace_file(path: Path, data: bytes | Iterable[bytes], *, sync: bool = False) -> None:
    """Write a file beside its place and rename it into it; `sync` makes that outlast a crash.

    Data in parts is written as it comes, and need never be whole in memory.
    """
    beside = path.with_name(f".{_short(path.name)}.new")
    try:
        with beside.open("wb") as file:
            file.writelines((data,) if isinstance(data, bytes) else data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        _replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    if sync:
        sync_folder(path.parent)


def link_or_copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Give a file that is never changed in place a second name; or copy it, synced."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
        with Path(target).open("rb+") as file:
            os.fsync(file.fileno())


def folder_or_temporary(
    folder: str | os.PathLike[str] | None,
) -> tuple[Path, tempfile.TemporaryDirectory[str] | None]:
    """Return a folder's path; of None that of a temporary one, and what it lasts as long as."""
    if folder is not None:
        return Path(folder), None
    temporary = tempfile.TemporaryDirectory(
        prefix="spade-faiss-",
        ignore_cleanup_errors=True,  # Windows keeps files that are mapped
    )
    return Path(temporary.name), temporary


def _replace(beside: Path, path: Path) -> None:
    for left in reversed(range(_ATTEMPTS)):
        try:
            beside.replace(path)
            return
        except PermissionError:
            if not left:
                raise
            time.sleep(_PAUSE)


def _short(name: str) -> str:
    """Return a name, or a digest of it where what is put before and after it may not fit."""
    data = os.fsencode(name)
    return name if len(data) <= _LONG else hashlib.sha256(data).hexdigest()[:16]


def sync_folder(folder: Path) -> None:
    """Make renames within a folder last through a loss of power.

    Windows has no call for that: there the file system's journal alone keeps them.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
