"""Where the results of what comes may go."""

from __future__ import annotations

from pathlib import Path

from ..errors import SpadeError
from ..report.folder import is_of_results


def check_place(watched: Path | None, index: Path, out: Path) -> None:
    """Refuse a folder for results that would be taken for what they are made of.

    Parameters
    ----------
    watched : Path or None
        The folder that images come into.
    index, out : Path

    Raises
    ------
    SpadeError
        If `out` lies in the index or in the watched folder, or the watched folder is one of those
        that results go to.
    """
    if out.resolve().is_relative_to(index.resolve()):
        raise SpadeError(f"{out} lies in the index; name another folder for the results")
    if watched is None:
        return
    if out.resolve().is_relative_to(watched.resolve()):
        raise SpadeError(f"{out} lies inside {watched}, which is watched; name one beside it")
    if is_of_results(watched, out):
        raise SpadeError(f"{watched} is where results go to; name another folder than {out}")
