"""Generations of an index: one writer at a time, and only the one that counts is kept.

Layout of an index folder::

    manifest.json                 which generation counts, its checksums, thresholds
    <8 hex digits>/               one generation of data, never changed once it counts
        descriptors.faiss         IndexFlatL2, one row an image
        level1.faiss …            IndexFlatL2, one row a patch; or, of half the size,
                                  IndexScalarQuantizer of type QT_fp16
        crops.u8                  the images framed for the network, uint8 [n, h, w, 3]; of those
                                  with a margin, wide.u8; whatever the region, they are whole
        level1.coreset.i64 …      a coreset's rows of the level, where one was asked for
        level1.gallery.faiss …    a FAISS index to search in whole, where one was asked for
        usual.f32                 with contrast: normal distances, float32 [rows, 3], all
                                  levels' rows in turn
        verified.json             which of these files were found whole (see `verify`)

Replacing the manifest is the one step that makes a change count. A process killed before it
leaves the old index whole, or no index where there was none; the next write clears what it left.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import SpadeError
from .manifest import MANIFEST, Manifest

_LOCK = ".lock"
_GENERATION = re.compile(r"[0-9a-f]{8}")


@contextmanager
def index_lock(folder: Path, manifest: str = MANIFEST) -> Iterator[None]:
    """Hold the folder of an index or ensemble, made if need be, for one writer at a time.

    Raises
    ------
    SpadeError
        If another process writes it now, it cannot be written, or it holds something else.
    """
    if folder.is_dir():
        strangers = [
            entry.name
            for entry in folder.iterdir()
            if entry.name not in (manifest, f".{manifest}.new", _LOCK)
            and not _GENERATION.fullmatch(entry.name)
        ]
        if strangers:
            raise SpadeError(
                f"{folder} holds other files ({sorted(strangers)[0]}); name a new folder"
            )
    elif folder.exists():
        raise SpadeError(f"{folder} is a file; name a folder for the index")
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise SpadeError(f"{folder} is being written by another process; wait for it") from None
    except OSError as error:
        raise SpadeError(f"{folder} cannot be written: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()


def discard_leftovers(folder: Path) -> None:
    """Remove every generation but the one that counts: replaced ones, and those of killed writers.

    Where a manifest is there but cannot be read, nothing is removed.
    """
    keep = Manifest.read(folder).generation if (folder / MANIFEST).exists() else None
    discard_generations(folder, keep)


def discard_generations(folder: Path, keep: str | None) -> None:
    """Remove every generation in a folder but one."""
    for entry in folder.iterdir():
        if _GENERATION.fullmatch(entry.name) and entry.name != keep:
            shutil.rmtree(entry, ignore_errors=True)
