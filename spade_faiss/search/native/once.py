"""A gallery that is searched once: exact, on the CPU, and nothing is kept."""

from __future__ import annotations

from ctypes import addressof, c_int32
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .gallery import bounds_of, fitting
from .jobs import run
from .library import COMPARE, MOST_CHANNELS, MULTIPLY, PACK, Direct, Kernels, Rows

_FEW = 24
"""Queries from which on products take less time than differences."""
_SHARE = 16
"""Times as many rows as are wanted of which bounds rule out too few."""
_SEVERAL = 64
"""Queries up to which it does not pay to pack rows for all threads together."""
_SOME, _LITTLE = 1 << 11, 1 << 20
"""Queries, and values of rows, up to which each thread rather packs all rows for itself."""
_MORE, _PACKED = 256, 180_000
"""Packing pays from so many on: queries, times as many channels and some more."""
_MOST_ROWS = 1 << 30
"""Up to which 32 bits number rows that are packed."""
_ALL = 16
"""Queries from which on a thread looks for their nearest among all rows rather than some."""
_MUCH = 3 << 20
"""Bytes of rows that are worth a thread, where they are looked at once."""
_AGAIN = 4
"""Queries that rows in cache are compared with in the time in which they come from memory."""


def is_short(queries: int, rows: int, channels: int, k: int) -> bool:
    """Say whether such a search is over before rows were packed for all threads together."""
    little = queries <= _SOME and rows * channels <= _LITTLE
    return queries <= _SEVERAL or little or _SHARE * k >= rows


def search_directly(
    kernels: Kernels,
    queries: npt.NDArray[np.float32],
    gallery: npt.NDArray[np.floating[Any]],
    k: int,
    way: int | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the `k` rows nearest to each query, where that is all that they are searched for.

    Parameters
    ----------
    kernels : Kernels
    queries : float32 [Q, C], contiguous
    gallery : float32 or float16 [G, C], contiguous
    k : int, 1 to G
    way : one of WAYS, optional
        Without it, the one that takes the least time.

    Returns
    -------
    distances : float32 [Q, k], squared Euclidean, ascending
    ids : int64 [Q, k]

    Raises
    ------
    ValueError
        If values are not finite.
    """
    (q, channels), g = queries.shape, len(gallery)
    if way is None:
        way = _fastest(q, g, channels, k)
    work = max(g, q * g // _AGAIN) * channels * gallery.itemsize
    parts = max(1, min(torch.get_num_threads(), work // _MUCH, g // k))
    kernels = fitting(kernels, channels)
    near, ids = _in_parts(kernels, way, queries, gallery, k, parts)
    if len(near) == 1:
        return near[0], ids[0]
    together = np.concatenate(near, axis=1)
    if not np.isfinite(together).all():  # float32 holds no distances so large: which is larger?
        near, ids = _in_parts(kernels, way, queries, gallery, k, 1)
        return near[0], ids[0]
    order = np.argsort(together, axis=1, kind="stable")[:, :k]
    chosen = np.take_along_axis(np.concatenate(ids, axis=1), order, 1)
    return np.take_along_axis(together, order, 1), chosen


def _in_parts(
    kernels: Kernels,
    way: int,
    queries: npt.NDArray[np.float32],
    gallery: npt.NDArray[np.floating[Any]],
    k: int,
    parts: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return what is found in each share of the gallery [shares, Q, k]."""
    q, g = len(queries), len(gallery)
    some_rows = q < parts * _ALL  # are what each looks at; else it is all rows, for some queries
    shares = parts if some_rows else 1
    near, ids = np.empty((shares, q, k), np.float32), np.empty((shares, q, k), np.int64)
    stop, calls = c_int32(0), (Direct * parts)()
    for part, (start, end) in enumerate(pairwise(bounds_of(g if some_rows else q, parts))):
        if some_rows:
            given = queries, gallery[start:end], near[part], ids[part], start
        else:
            given = queries[start:end], gallery, near[0, start:end], ids[0, start:end], 0
        calls[part] = _direct(way, *given, stop)
    try:
        held = queries, gallery, near, ids
        run(kernels.direct, calls, queries.size * g, stop, "", held)
    except ValueError:
        name = "gallery" if np.isfinite(queries).all() else "queries"
        raise ValueError(f"{name} hold NaN or infinite values") from None
    return near, ids


def _fastest(queries: int, rows: int, channels: int, k: int) -> int:
    few = queries < _FEW or _SHARE * k >= rows
    if few or channels > MOST_CHANNELS or rows > _MOST_ROWS:
        return COMPARE
    return PACK if queries * (_MORE + channels) >= _PACKED else MULTIPLY


def _direct(
    way: int,
    queries: npt.NDArray[Any],
    rows: npt.NDArray[Any],
    near: npt.NDArray[Any],
    ids: npt.NDArray[Any],
    first: int,
    stop: c_int32,
) -> Direct:
    (count, channels), k = queries.shape, near.shape[1]
    asked, base, distances, found = map(_address, (queries, rows, near, ids))
    gallery = Rows(base, len(rows), rows.itemsize == 2, 0)
    return Direct(gallery, way, asked, count, channels, k, first, distances, found, addressof(stop))


def _address(values: npt.NDArray[Any]) -> int:
    """Return where values lie; NumPy's own `ctypes` takes five times as long."""
    place: int = values.__array_interface__["data"][0]
    return place
