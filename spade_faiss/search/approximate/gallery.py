"""What one level is searched in: made out of arrays, by a coreset or a FAISS index or both."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._support.faiss import faiss, faiss_errors
from ...types import Floats, Ids
from .coreset import greedy_coreset
from .spec import GallerySpec

_ADDED = 1 << 16
"""Patches that are added to an index at a time."""


@dataclass(frozen=True)
class Gallery:
    """What one level is searched in, opened.

    Attributes
    ----------
    patches : float32 [G, C]
    rows : int64 [G] or None
        The level's row of each patch, ascending; None where the gallery is the whole level.
    index : faiss.Index or None
        Over the patches, in their order; None where they are searched exactly.
    bytes : int
        Size of what is searched.
    """

    patches: Floats
    rows: Ids | None
    index: Any
    bytes: int

    def within(self, rows: range) -> range:
        """Return which patches of the gallery are some rows of the level."""
        if self.rows is None:
            return rows
        start, stop = np.searchsorted(self.rows, (rows.start, rows.stop)).tolist()
        return range(start, stop)


def choose_rows(
    patches: Floats, spec: GallerySpec, on_progress: Callable[[int], None] | None = None
) -> Ids | None:
    """Return the rows of a level that are in its gallery, ascending; None where all are.

    Parameters
    ----------
    patches : float32 [rows, C]
    spec : GallerySpec
    on_progress : callable, optional
        Called now and then with the number of rows chosen so far.

    Returns
    -------
    int64 [G] or None
    """
    if spec.coreset is None:
        return None
    return np.sort(greedy_coreset(patches, spec.count(len(patches)), on_progress))


def train_index(
    patches: Floats, factory: str, search_params: str, on_progress: Callable[[int], object]
) -> Any:
    """Return a FAISS index over patches.

    IVF and codes are the same for the same patches; HNSW's graph differs a little from build to
    build, as threads add to it at once.

    Parameters
    ----------
    patches : float32 [G, C]
    factory : str
        What `faiss.index_factory` takes.
    search_params : str
        That it will be searched with; may be empty.
    on_progress : callable
        Called with the number of patches that were added, each time.

    Raises
    ------
    RuntimeError
        If FAISS fails.
    """
    from .try_factory import skip_polysemous  # which imports FAISS

    module = faiss()
    index = module.index_factory(patches.shape[1], factory)
    skip_polysemous(index, search_params)
    with _no_clustering_warnings():
        index.train(patches)
    # NSG takes all at once.
    piece = len(patches) if isinstance(index, module.IndexNSG) else _ADDED
    for start in range(0, len(patches), piece):
        index.add(patches[start : start + piece])
        on_progress(len(patches[start : start + piece]))
    return index


def set_search_params(gallery: Gallery, params: str) -> None:
    """Set how thoroughly a gallery's index is searched, as "nprobe=64" says.

    Raises
    ------
    SpadeError
        If the index has no such parameter.
    """
    with faiss_errors(f"search parameters {params!r}"):
        faiss().ParameterSpace().set_index_parameters(gallery.index, params)


@contextmanager
def _no_clustering_warnings() -> Iterator[None]:
    """Hold back FAISS's many lines on standard error about few points for clustering.

    They come from C++, so the file descriptor itself is turned aside; all else that was
    written to it meanwhile is passed on.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            aside.seek(0)
            for line in aside:
                if not line.startswith(b"WARNING clustering"):
                    os.write(2, line)
