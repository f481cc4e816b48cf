"""A small gallery that stands for a large one: the greedy coreset of PatchCore.

Choosing the `count` rows that leave every other row as close to a chosen one as can be (minimax
facility location, or k-center) is NP-hard; taking the row farthest from all chosen so far, again
and again, is at most twice as far from the best (Gonzalez, *Clustering to minimize the maximum
intercluster distance*, 1985). PatchCore (Roth et al., *Towards total recall in industrial
anomaly detection*, 2022, section 3.2) reduces its memory bank so, on a random projection to save
time. Here the real features are used. For a level of 256 channels, a projection to 128 halves the
time, but it changes a fifth of the choices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...types import Doubles, Floats, Ids

Tile = tuple[int, int]

ACTIVE = 8192
"""Rows among which the next ones are looked for."""
TILE: Tile = 512, 1024
"""Rows and centres whose distances are computed at once, 4 MiB that stay in cache."""


def greedy_coreset(
    patches: Floats,
    count: int,
    on_progress: Callable[[int], None] | None = None,
    *,
    active: int = ACTIVE,
    tile: Tile = TILE,
) -> Ids:
    """Choose rows one by one, each the farthest from all that were chosen before it.

    The first is the row nearest to the mean. Of equally far rows the first is taken, and no row
    is taken twice. The first m rows chosen are the coreset of m rows.

    A distance to the nearest chosen row only shrinks as more are chosen, so one that was
    computed earlier is an upper bound. That makes it enough to look at a few thousand rows at a
    time: those whose bounds are largest, brought up to date with all rows chosen since. As long
    as the farthest of them is no nearer than the bounds of the rest, it is the farthest of all.
    Most rows are looked at only a few times, by matrix products over many chosen rows at once;
    the choices are those of the plain method.

    Parameters
    ----------
    patches : float32 [n, C]
    count : int, 1 to n
    on_progress : callable, optional
        Called now and then with the number of rows chosen so far.
    active : int
        Rows among which the next ones are looked for. Any number gives the same coreset.
    tile : (int, int)
        Rows and centres whose distances are computed at once. Any numbers give the same coreset.

    Returns
    -------
    int64 [count], in the order of choice

    Raises
    ------
    ValueError
        If `count` is out of range.
    """
    n = len(patches)
    if not 1 <= count <= n:
        raise ValueError(f"a coreset of {count} rows must have between 1 and {n}")
    mean = patches.mean(axis=0, dtype=np.float64)
    chosen = np.empty(count, np.int64)
    chosen[0] = _distances(patches, mean[None], tile).argmin()
    bound = _distances(patches, patches[chosen[:1]], tile)
    bound[chosen[0]] = -1  # farther than no other: never chosen again
    # How many of the chosen rows each bound takes into account.
    seen = np.ones(n, np.int64)
    size = 1
    while size < count:
        limit = np.partition(bound, -active)[-active] if n > active else bound.min()
        candidates = np.flatnonzero(bound >= limit)
        for before in np.unique(seen[candidates]):
            if before < size:
                stale = candidates[seen[candidates] == before]
                new = _distances(patches[stale], patches[chosen[before:size]], tile)
                bound[stale] = np.minimum(bound[stale], new)
        seen[candidates] = size
        candidates = candidates[bound[candidates] >= limit]
        size = _choose(patches[candidates], candidates, bound, limit, chosen, size)
        seen[candidates] = size
        if on_progress:
            on_progress(size)
    return chosen


def _choose(
    patches: Floats, active: Ids, bound: Floats, limit: float, chosen: Ids, size: int
) -> int:
    """Choose among the active rows while the farthest is at least `limit` away.

    Extends `chosen` from `size` on, keeps the active rows' bounds up to date, and returns the
    new size.
    """
    rows = patches.astype(np.float64)
    norms = np.einsum("nc,nc->n", rows, rows)
    near = bound[active]
    while size < len(chosen) and len(active):
        at = int(near.argmax())
        if near[at] < limit:
            break
        chosen[size] = active[at]
        size += 1
        np.minimum(near, _root(norms + norms[at] - 2 * (rows @ rows[at])), out=near)
        near[at] = -1
    bound[active] = near
    return size


def _distances(patches: Floats, centres: Floats | Doubles, tile: Tile) -> Floats:
    """Return each row's distance to its nearest centre, [n].

    The squares are expanded into norms and a product, in double precision, so that what cancels
    is far below what float32 can hold of a distance.
    """
    nearest = np.full(len(patches), np.inf)
    norms = np.zeros(len(patches))
    height, width = tile
    for top in range(0, len(patches), height):
        part = slice(top, top + height)
        rows = patches[part].astype(np.float64)
        norms[part] = np.einsum("nc,nc->n", rows, rows)
        for left in range(0, len(centres), width):
            others = centres[left : left + width].astype(np.float64)
            products = rows @ (-2 * others).T
            products += np.einsum("nc,nc->n", others, others)
            np.minimum(nearest[part], products.min(axis=1), out=nearest[part])
    return _root(nearest + norms)


def _root(squared: Doubles) -> Floats:
    return np.sqrt(np.maximum(squared, 0)).astype(np.float32)
