"""Folders in a folder, and which of them hold an index or an ensemble."""

from __future__ import annotations

from pathlib import Path

from .manifest import ENSEMBLE, MANIFEST


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
