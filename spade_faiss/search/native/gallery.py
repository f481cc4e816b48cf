"""A gallery as the compiled kernels search it: exact, on the CPU."""

from __future__ import annotations

from collections import OrderedDict
from ctypes import POINTER, addressof, c_int32, pointer
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .axes import Axes
from .jobs import run
from .library import ROWS, TERMS, Kernels, Map, Pack, Packed, Rows, Search

KEEP = 64 << 20
"""Bytes of packed rows that are kept from one search to the next, at the most."""
_PIECE = 1024
"""Queries of a call, at the most: what is known of them stays in cache."""
_LEAST = 32
"""Queries that are worth a call of their own."""
_ALONE = 1 << 26
"""Multiplications that are done before another thread has begun."""


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
        kernels = self._kernels = fitting(kernels, coordinates)
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
        if b * q == 0:
            return found
        work = b * q * images.shape[1] * self._per_image
        alone = work * self._map.channels < _ALONE
        threads = 1 if alone else torch.get_num_threads()
        parts = max(-(-q // _PIECE), min(-(-threads // b), -(-q // _LEAST)))
        bounds = bounds_of(q, parts)
        packed = self._packed(images)
        stop = c_int32(0)
        calls = []
        for item, among in enumerate(images.tolist()):
            table = (POINTER(Packed) * len(among))(*(pointer(packed[i].packed) for i in among))
            for start, end in pairwise(bounds):
                part = queries[item, start:end], found[0][item, start:], found[1][item, start:]
                calls.append(_call(self._map, self._rows, table, part, k, stop))
        held = self, packed, queries, found
        run(self._kernels.search, (Search * len(calls))(*calls), work, stop, "queries", held)
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
        if not made:
            return []
        work = len(made) * self._per_image * self._patches.shape[1]
        given, stop = (pointer(self._map), pointer(self._rows)), c_int32(0)
        calls = [Pack(*given, pointer(one.packed), addressof(stop)) for one in made]
        run(self._kernels.pack, (Pack * len(calls))(*calls), work, stop, "gallery", (self, made))
        return made


def fitting(kernels: Kernels, coordinates: int) -> Kernels:
    """Return those for rows of few coordinates where these are so few."""
    narrow = kernels.narrow
    return narrow.contents if narrow and coordinates <= narrow.contents.most else kernels


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


def bounds_of(count: int, parts: int) -> list[int]:
    """Return where like parts of so many things begin, and where the last one ends."""
    return [count * i // parts for i in range(parts + 1)]


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
