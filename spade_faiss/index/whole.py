"""An index or ensemble as a whole: kept beside itself as it is, and put in another's place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .._support.files import link_or_copy, replace_file, sync_folder
from ..errors import SpadeError
from .ensemble import is_ensemble, read_manifest
from .generation import discard_generations, index_lock
from .manifest import ENSEMBLE, MANIFEST
from .record import file_sha256


def manifest_path(folder: Path) -> Path:
    """Return the path of the manifest of the index or ensemble that a folder holds."""
    return folder / (ENSEMBLE if is_ensemble(folder) else MANIFEST)


def clone_index(source: Path, target: Path) -> str:
    """Keep an index as it is now in a folder of its own; what was in that folder goes.

    Its files get second names where the file system can do so, which takes no room.

    Returns
    -------
    str
        The SHA-256 of its manifest's file.

    Raises
    ------
    SpadeError
        If it is being written, or the new folder cannot be.
    """
    manifest = manifest_path(source)
    try:
        with index_lock(source, manifest.name):
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            _put(source, target, manifest.name)
            return file_sha256(target / manifest.name)
    except OSError as error:
        raise SpadeError(f"{target} cannot be written: {error.strerror or error}") from None


def put_in_place(source: Path, target: Path, instead_of: str) -> None:
    """Put an index in the place of another, at once and synced; the other one goes.

    Parameters
    ----------
    source, target : Path
        Folders of indices, or of ensembles. `source` stays as it is.
    instead_of : str
        The SHA-256 of the manifest's file that `target` must still have.

    Raises
    ------
    SpadeError
        If `target` was changed since, is being written, or cannot be; it is then as it was.
    """
    manifest = manifest_path(target)
    try:
        with index_lock(target, manifest.name):
            if manifest_path(source).name != manifest.name or file_sha256(manifest) != instead_of:
                raise SpadeError(f"{target} was changed meanwhile; begin again")
            discard_generations(target, read_manifest(target).generation)
            try:
                _put(source, target, manifest.name)
            finally:  # by what counts
                discard_generations(target, read_manifest(target).generation)
    except OSError as error:
        raise SpadeError(
            f"{target} cannot be written: {error.strerror or error}; what was there before is whole"
        ) from None


def _put(source: Path, target: Path, manifest: str) -> None:
    """Give the files of what counts in a folder names in another, and then its manifest."""
    generation = read_manifest(source).generation
    place = target / generation
    if not place.exists():
        shutil.copytree(source / generation, place, copy_function=link_or_copy)
        for folder, _, _ in os.walk(place):
            sync_folder(Path(folder))
        sync_folder(target)
    replace_file(target / manifest, (source / manifest).read_bytes(), sync=True)
