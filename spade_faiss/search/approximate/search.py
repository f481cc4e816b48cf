"""Stage two in a whole gallery: a coreset or an approximate index over all training patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..._support.faiss import faiss_reason
from ...errors import SpadeError
from ...types import Floats, Ids
from ..exhaustive import by_differences
from ..level import LevelSearch, tensor
from ..nearest import nearest, pieces_of
from .gallery import Gallery

_SPARE = 31
"""How many more patches than asked for an approximate index names, for the nearest in truth to
be taken: codes (PQ, SQ) measure distances only roughly. On MVTec AD's hazelnuts the recall of PQ8
at the finest level is 0.975 with it and 0.627 without, in 5 % more time."""


def nearest_in_gallery(
    queries: Floats,
    gallery: Gallery,
    k: int = 1,
    leave_out: Sequence[range] = (),
    engine: str = "auto",
    kept: LevelSearch | None = None,
) -> tuple[Floats, Ids]:
    """Return the `k` patches of a gallery nearest to each query.

    Where the gallery has an approximate index, it names the candidates; distances are always
    true ones, and a query for which it names fewer than `k` patches is searched exactly.

    To leave out an image's own patches (its calibration, say), an approximate index is asked for
    more patches than `k`, and for more again while some query has fewer than `k` others. That
    ends: as many more as the image has patches in the gallery are enough. FAISS's selectors
    would do it too, but only some types of index take one, and for HNSW the patches left out
    would use up the candidates.

    Parameters
    ----------
    queries : float32 [Q, C]
    gallery : Gallery
    k : int
    leave_out : sequence of range
        Rows of the level that are not to be found.
    engine : one of `spade_faiss.search.ENGINES`
        For what is searched exactly.
    kept : LevelSearch, optional
        Of this gallery, by `gallery_search`, where it is searched again and again.

    Returns
    -------
    distances : float32 [Q, k], squared Euclidean, ascending
    rows : int64 [Q, k], rows of the level

    Raises
    ------
    SpadeError
        If the gallery has fewer than `k` patches, those left out aside.
    """
    own = sorted(
        (part for part in map(gallery.within, leave_out) if len(part)), key=lambda part: part.start
    )
    left_out = sum(map(len, own))
    if k > len(gallery.patches) - left_out:
        raise SpadeError(
            f"kappa = {k} is more than the gallery has: {len(gallery.patches)} "
            f"patches at this level, {left_out} of them of the image itself; "
            "build with a larger `coreset`"
        )
    if gallery.index is None and kept is not None and not own:
        blocks = torch.arange(-(-len(kept.patches) // kept.per_image))[None]
        found = kept.search(tensor(queries)[None], blocks, k, engine)
        distances, ids = (values[0].cpu().numpy() for values in found)
    elif gallery.index is None:
        distances, ids = nearest_outside(queries, gallery.patches, k, own, engine)
    else:
        distances, ids = _approximate(queries, gallery, k, own, engine)
    return distances, ids if gallery.rows is None else gallery.rows[ids]


def gallery_search(gallery: Gallery) -> LevelSearch:
    """Return what is made once of a gallery that is searched exactly, again and again."""
    return LevelSearch(gallery.patches, pieces_of(*gallery.patches.shape))


def nearest_outside(
    queries: Floats, patches: Floats, k: int, own: Sequence[range], engine: str = "auto"
) -> tuple[Floats, Ids]:
    """Return the `k` patches nearest to each query, exactly, but for the rows `own`.

    Parameters
    ----------
    queries : float32 [Q, C]
    patches : float32 [G, C]
    k : int, at most the patches that are left
    own : sequence of range, ascending, apart from each other

    Returns
    -------
    distances : float32 [Q, k], squared Euclidean, ascending
    ids : int64 [Q, k]
    """
    found = []
    starts, stops = (0, *(part.stop for part in own)), (*(part.start for part in own), len(patches))
    for start, stop in zip(starts, stops, strict=True):
        if start < stop:
            distances, ids = nearest(queries, patches[start:stop], min(k, stop - start), engine)
            found.append((distances, ids + start))
    if len(found) == 1:
        return found[0]
    distances, ids = (np.concatenate(both, axis=1) for both in zip(*found, strict=True))
    return _smallest(distances, ids, k)


def _approximate(
    queries: Floats, gallery: Gallery, k: int, own: Sequence[range], engine: str
) -> tuple[Floats, Ids]:
    size = len(gallery.patches)
    distances = np.empty((len(queries), k), np.float32)
    ids = np.full((len(queries), k), -1, np.int64)
    todo = np.arange(len(queries))
    enough = min(k + sum(map(len, own)), size)
    asked = min(k + _SPARE, size)
    while len(todo):
        try:
            _, named = gallery.index.search(queries[todo], asked)
        except RuntimeError as error:
            raise SpadeError(f"the gallery cannot be searched: {faiss_reason(error)}") from None
        others = (named >= 0) & (named < size)
        for part in own:
            others &= (named < part.start) | (named >= part.stop)
        done = others.sum(axis=1) >= k
        at = todo[done]
        candidates = torch.from_numpy(np.where(others[done], named[done], 0))
        true = by_differences(tensor(queries[at]), tensor(gallery.patches), candidates).numpy()
        true[~others[done]] = np.inf
        distances[at], ids[at] = _smallest(true, named[done], k)
        # Where less was found than asked for, the index has no more.
        todo = todo[~done & (named[:, -1] >= 0)]
        if asked >= enough:
            break
        asked = min(4 * asked, max(enough, k + _SPARE), size)
    missed = np.flatnonzero(ids[:, 0] < 0)
    if len(missed):
        distances[missed], ids[missed] = nearest_outside(
            queries[missed], gallery.patches, k, own, engine
        )
    return distances, ids


def _smallest(distances: Floats, ids: Ids, k: int) -> tuple[Floats, Ids]:
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), np.take_along_axis(ids, order, 1)
