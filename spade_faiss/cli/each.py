"""Many production lines, or parts: which ones the folders that a command was given hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import SpadeError
from ..index.folders import folders_in, holds_index, indices_in


def production_lines_to_learn(train_dir: Path, indices: Path) -> list[str]:
    """Return the lines that a folder holds images of, to be indexed in another folder.

    Raises
    ------
    SpadeError
        If there are none, or the other folder is an index itself or lies in the first.
    """
    names = folders_in(train_dir)
    if not names:
        raise SpadeError(f"{train_dir} holds no folders: --each takes one for each line")
    if indices.resolve().is_relative_to(train_dir.resolve()):
        raise SpadeError(
            f"{indices} lies in {train_dir}, where it would be taken for a line; name "
            "a folder beside it"
        )
    if holds_index(indices):
        raise SpadeError(f"{indices} holds an index; with --each, name a folder for all lines'")
    return names


def production_lines_to_query(indices: Path, images: Sequence[Path]) -> list[str]:
    """Return the lines that have an index in one folder or images in the other.

    Raises
    ------
    SpadeError
        If there are none with an index, or `images` is not one folder.
    """
    if len(images) != 1 or not images[0].is_dir():
        raise SpadeError("--each takes one folder of images, which holds a folder for each line")
    names = indices_in(indices)
    if not names:
        raise SpadeError(
            f"{indices} holds no folders with indices; make them with: spade-faiss "
            f"build LINES_DIR --each --index {indices}"
        )
    return sorted({*names, *folders_in(images[0])})


def one_index(folder: Path) -> Path:
    """Return a folder, which must not hold the indices of several lines instead of one.

    Raises
    ------
    SpadeError
        If it does.
    """
    if not holds_index(folder) and (names := indices_in(folder)):
        raise SpadeError(
            f"{folder} holds no index, but its folders do ({', '.join(names)}): "
            "name one of them, or add --each to query them all"
        )
    return folder
