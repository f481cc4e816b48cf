"""Find damaged files of an index, and remember which were whole, so as not to read these again.

Reading every byte for its checksum takes time that grows with the index; what a query reads does
not. So a file is read whole when it is opened for the first time, and what it looked like then
(size, times of change, inode) is kept beside it. As long as it states the same it is not read
again. The system sets the time of the last change itself (ctime), whoever writes; what changes a
disk's bits behind its back is found by `info --verify`, which reads everything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from .._support.files import replace_file
from .manifest import DataFile, Manifest
from .record import file_sha256

STAMP = "verified.json"
SETTLED = 1.0
"""Seconds since a file's last change from which on a later change cannot bear the same time."""

FileState = list[str | int]


def state_of(path: Path, file: DataFile) -> FileState:
    """Return what tells a file, and what it should hold, from any other."""
    found = path.stat()
    return [file.sha256, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def read_stamp(folder: Path, manifest: Manifest) -> Mapping[str, FileState]:
    """Return what the files looked like when they were found whole, by name; maybe of none."""
    try:
        record = json.loads((folder / manifest.generation / STAMP).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_stamp(folder: Path, manifest: Manifest, states: Mapping[str, FileState]) -> None:
    """Keep what whole files looked like before they were read.

    Those that were changed just before are left out, and where nothing can be written (an index
    that is read-only) they are read whole each time.
    """
    latest = (time.time() - SETTLED) * 1e9
    settled = {name: state for name, state in states.items() if max(map(int, state[2:4])) < latest}
    with suppress(OSError):
        replace_file(folder / manifest.generation / STAMP, json.dumps(settled).encode())


def damaged_files(folder: Path, manifest: Manifest, *, again: bool = True) -> list[str]:
    """Return one line for each data file that is missing or differs from its checksum.

    Unless `again`, files that were found whole and have not been changed since are not read.
    """
    known = {} if again else read_stamp(folder, manifest)
    whole: dict[str, FileState] = {}

    def check(file: DataFile) -> str | None:
        path = folder / file.name
        try:
            size = path.stat().st_size
            if size != file.bytes:
                return f"{path} is damaged: {size} bytes long where {file.bytes} were written"
            state = state_of(path, file)
            if known.get(file.name) != state and file_sha256(path) != file.sha256:
                return f"{path} is damaged: checksum differs"
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        whole[file.name] = state
        return None

    with ThreadPoolExecutor() as pool:
        bad = [line for line in pool.map(check, manifest.files) if line]
    if whole != known:
        write_stamp(folder, manifest, whole)
    return bad
