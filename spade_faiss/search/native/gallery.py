"""A gallery as the compiled kernels search it: exact, on the CPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from ctypes import POINTER, addressof, byref, c_int32, pointer
from functools import partial
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..threads import side_by_side
from .axes import Axes
from .library import (
    DONE,
    NO_MEMORY,
    NOT_FINITE,
    ROWS,
    TERMS,
    Direct,
    Kernels,
    Map,
    Packed,
    Rows,
    Search,
)

KEEP = 64 << 20
"""Bytes of packed rows that are kept from one search to the next, at the most."""
_PIECE = 1024
"""Queries of a call, at the most: what is known of them stays in cache."""
_LEAST = 32
"""Queries that are worth a call of their own."""
_MUCH = 1 << 23
"""Bytes of rows that are worth a thread, where they are looked at once."""
_AGAIN = 8
"""Queries that rows in cache are compared with in the time in which they come from memory."""
_ALONE = 1 << 26
"""Multiplications that are done before another thread has begun."""
_SHORT = 1 << 27
"""Operations that nobody interrupts."""


class NativeGallery:
    """The patches of training images, packed as they are asked for.

    Parameters
    ----------
    kernels : Kernels
    patches : float32 or float16 tensor [rows, C], contiguous, on the CPU
        Row `i * per_image + j` is patch j of image i; the last image may have fewer.
    per_image : int
    axes : Axes
        How rows are shortened. The result does not depend on it.
    """

    def __init__(self, kernels: Kernels, patches: Tensor, per_image: int, axes: Axes) -> None:
        coordinates = axes.kept + axes.rests
        if kernels.narrow and coordinates <= kernels.narrow.contents.most:
            kernels = kernels.narrow.contents
        self._kernels = kernels
        self._patches = patches
        self._per_image = per_image
        self._axes = axes
        width = -(-coordinates // kernels.multiple) * kernels.multiple
        self._map = Map(
            centre=axes.centre.data_ptr(),
            axes=None if axes.turned is None else axes.turned.data_ptr(),
            unit=axes.unit,
            rest=axes.rest,
            channels=patches.shape[1],
            kept=axes.kept,
            rests=axes.rests,
            padded=0 if axes.turned is None else axes.turned.shape[1],
            width=width,
        )
        self._rows = _rows(patches)
        self._block = width * ROWS + TERMS
        self._images: OrderedDict[int, _Image] = OrderedDict()
        self._lock = Lock()

    def search(self, queries: Tensor, images: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return for each query its `k` nearest patches among those of its own training images.

        Parameters
        ----------
        queries : float32 [B, Q, C], contiguous, on the CPU
        images : int64 [B, K], each training image once in a row
        k : int, 1 to the patches of the K images

        Returns
        -------
        distances : float32 [B, Q, k], squared Euclidean, ascending
        ids : int64 [B, Q, k]

        Raises
        ------
        ValueError
            If values are not finite.
        """
        b, q, _ = queries.shape
        found = torch.empty(b, q, k), torch.empty(b, q, k, dtype=torch.int64)
        work = b * q * images.shape[1] * self._per_image
        alone = work * self._map.channels < _ALONE
        threads = 1 if alone else torch.get_num_threads()
        parts = max(-(-q // _PIECE), min(-(-threads // b), -(-q // _LEAST)))
        bounds = [q * i // parts for i in range(parts + 1)]
        packed = self._packed(images)
        stop = c_int32(0)
        calls = []
        for item, among in enumerate(images.tolist()):
            table = (POINTER(Packed) * len(among))(*(pointer(packed[i].packed) for i in among))
            for start, end in pairwise(bounds):
                part = queries[item, start:end], found[0][item, start:], found[1][item, start:]
                calls.append(_call(self._map, self._rows, table, part, k, stop))
        _run(self._kernels.search, calls, work, stop, "queries", (self, packed, queries, found))
        return found

    def _packed(self, images: Tensor) -> dict[int, _Image]:
        """Return images' packed rows, and keep them; others go where there are too many."""
        wanted = np.unique(images.numpy()).tolist()
        each = -(-self._per_image // ROWS) * (self._block + 4 * ROWS) + 4 * self._per_image
        with self._lock:
            missing = [i for i in wanted if i not in self._images]
            for i in wanted:
                if i in self._images:
                    self._images.move_to_end(i)
            most = max(len(wanted), KEEP // each) - len(missing)
            while len(self._images) > most:
                self._images.popitem(last=False)
            try:
                some = self._pack(missing)
            except MemoryError:  # only what is wanted now may stay
                while len(self._images) > len(wanted) - len(missing):
                    self._images.popitem(last=False)
                some = self._pack(missing)
            self._images.update(zip(missing, some, strict=True))
            return {i: self._images[i] for i in wanted}

    def _pack(self, images: list[int]) -> list[_Image]:
        made = [_Image(self._patches, self._per_image, self._block, i) for i in images]
        pack = partial(self._kernels.pack, byref(self._map), byref(self._rows))
        work = len(made) * self._per_image * self._patches.shape[1]
        _run(pack, [one.packed for one in made], work, c_int32(0), "gallery", (self, made))
        return made


class _Image:
    """Room for an image's packed rows."""

    def __init__(self, patches: Tensor, per_image: int, block: int, image: int) -> None:
        first = image * per_image
        rows = min(per_image, len(patches) - first)
        blocks = -(-rows // ROWS)
        room = np.empty(blocks * block + 64, np.uint8)
        self.blocks = room[-room.ctypes.data % 64 :]  # no vector lies across two lines of a cache
        self.copies = np.empty(rows, np.int32)
        self.order = np.empty(blocks * ROWS, np.int32)
        where = (one.ctypes.data for one in (self.blocks, self.copies, self.order))
        self.packed = Packed(*where, 0, first, rows)


def search_directly(
    kernels: Kernels, queries: Tensor, gallery: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Return the `k` rows nearest to each of few queries, by differences of all pairs.

    Parameters
    ----------
    kernels : Kernels
    queries : float32 [Q, C], contiguous, on the CPU
    gallery : float32 or float16 [G, C], contiguous, on the CPU
    k : int, 1 to G

    Returns
    -------
    distances : float32 [Q, k], squared Euclidean, ascending
    ids : int64 [Q, k]

    Raises
    ------
    ValueError
        If values are not finite.
    """
    (q, channels), g, size = queries.shape, gallery.shape[0], gallery.itemsize
    work = max(g, q * g // _AGAIN) * channels * size
    parts = max(1, min(torch.get_num_threads(), work // _MUCH, g // k))
    distances, ids = torch.empty(parts * q, k), torch.empty(parts * q, k, dtype=torch.int64)
    half, stop, calls = gallery.dtype == torch.float16, c_int32(0), []
    where = [one.data_ptr() for one in (gallery, queries, distances, ids)]
    for part in range(parts):
        start, end = g * part // parts, g * (part + 1) // parts
        rows = Rows(where[0] + start * channels * size, end - start, half, 0)
        near, found = where[2] + 4 * part * q * k, where[3] + 8 * part * q * k
        calls.append(Direct(rows, where[1], q, channels, k, start, near, found, addressof(stop)))
    try:
        held = queries, gallery, distances, ids
        _run(kernels.direct, calls, q * g * channels, stop, "", held)
    except ValueError:
        name = "gallery" if queries.isfinite().all() else "queries"
        raise ValueError(f"{name} hold NaN or infinite values") from None
    if parts == 1:
        return distances, ids
    distances, order = (
        distances.view(parts, q, k).transpose(0, 1).reshape(q, -1).sort(dim=1, stable=True)
    )
    ids = ids.view(parts, q, k).transpose(0, 1).reshape(q, -1)
    return distances[:, :k], ids.gather(1, order[:, :k])


def _rows(patches: Tensor) -> Rows:
    return Rows(data=patches.data_ptr(), rows=len(patches), half=patches.dtype == torch.float16)


def _call(
    by: Map,
    rows: Rows,
    images: Any,
    part: tuple[Tensor, Tensor, Tensor],
    k: int,
    stop: c_int32,
) -> Search:
    queries, distances, ids = part
    return Search(
        map=pointer(by),
        gallery=pointer(rows),
        queries=queries.data_ptr(),
        count=len(queries),
        images=images,
        image_count=len(images),
        k=k,
        distances=distances.data_ptr(),
        ids=ids.data_ptr(),
        stop=addressof(stop),
    )


def _run(
    function: Any,
    calls: Sequence[Search | Packed | Direct],
    work: int,
    stop: c_int32,
    name: str,
    held: tuple[object, ...],
) -> None:
    """Make calls side by side; whatever interrupts the wait stops them.

    `work` is what they do at the least: about a nanosecond each. `held` has the memory that they
    use. Each call holds it until it ends: after a second Ctrl-C nobody waits for that.
    """
    if work < _SHORT and len(calls) == 1:
        states = [function(byref(calls[0]))]
    else:
        states = side_by_side(
            lambda one: function(byref(one[0])),
            [(call, stop, held) for call in calls],
            partial(setattr, stop, "value", 1),
        )
    if NO_MEMORY in states:
        raise MemoryError("out of memory: a search found no room")
    if NOT_FINITE in states:
        raise ValueError(f"{name} hold NaN or infinite values")
    assert all(state == DONE for state in states)
