"""Folders in a folder, and which of them hold an index or an ensemble."""

from __future__ import annotations

from pathlib import Path

from .manifest import ENSEMBLE, MANIFEST

Stamp = tuple[tuple[int, ...] | None, ...]
"""What tells one manifest's file from the next; see `stamp_of`."""


def holds_index(folder: Path) -> bool:
    """Say whether a folder holds an index or an ensemble."""
    return (folder / MANIFEST).exists() or (folder / ENSEMBLE).exists()


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, in order, but for hidden ones."""
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def indices_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder that hold an index or an ensemble, in order."""
    if not folder.is_dir():
        return []
    return [name for name in folders_in(folder) if holds_index(folder / name)]


def stamp_of(folder: Path) -> Stamp:
    """Return what tells one manifest's file from the next, which is renamed into place."""
    looks: list[tuple[int, ...] | None] = []
    for name in (MANIFEST, ENSEMBLE):
        try:
            found = (folder / name).stat()
            looks.append((found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size))
        except OSError:
            looks.append(None)
    return tuple(looks)
