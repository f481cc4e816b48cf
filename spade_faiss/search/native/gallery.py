"""A gallery as the compiled kernels search it: exact, on the CPU."""

from __future__ import annotations

from collections import OrderedDict
from ctypes import POINTER, byref, c_int32, pointer
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...types import Ids
from ..threads import side_by_side
from .axes import Axes
from .library import DONE, NO_MEMORY, NOT_FINITE, ROWS, TERMS, Kernels, Map, Packed, Rows, Search

KEEP = 512 << 20
"""Bytes of packed rows that are kept from one search to the next, at the most."""
_PIECE = 1024
"""Queries of a call, at the most: what is known of them stays in cache."""


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
        self.kernels = kernels
        self.patches = patches
        self.per_image = per_image
        self.axes = axes
        rows, channels = patches.shape
        coordinates = channels if axes.turned is None else axes.kept + 1
        self.width = -(-coordinates // kernels.multiple) * kernels.multiple
        self._map = Map(
            axes.centre.data_ptr(),
            None if axes.turned is None else axes.turned.data_ptr(),
            axes.unit,
            axes.rest,
            channels,
            axes.kept,
            0 if axes.turned is None else axes.turned.shape[1],
            self.width,
        )
        self._rows = Rows(patches.data_ptr(), rows, patches.dtype == torch.float16, 0)
        self._block = self.width * ROWS + TERMS
        self._images: OrderedDict[int, tuple[Packed, Any]] = OrderedDict()
        self._lock = Lock()

    def search(self, queries: Tensor, images: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return for each query its `k` nearest patches among those of its own training images.

        Parameters
        ----------
        queries : float32 [B, Q, C]
        images : int64 [B, K], each training image once in a row
        k : int

        Returns
        -------
        distances : float32 [B, Q, k], squared Euclidean, ascending
        ids : int64 [B, Q, k]

        Raises
        ------
        ValueError
            If values are not finite.
        """
        queries = queries.contiguous()
        b, q, _ = queries.shape
        distances = torch.empty(b, q, k)
        ids = torch.empty(b, q, k, dtype=torch.int64)
        threads = torch.get_num_threads()
        parts = max(-(-q // _PIECE), min(-(-threads // b), -(-q // 32)))
        bounds = [q * i // parts for i in range(parts + 1)]
        packed = self._packed(images)
        stop = c_int32(0)
        counts = np.zeros((b, parts, 3), np.int64)
        calls = []
        for item, among in enumerate(images.tolist()):
            table = (POINTER(Packed) * len(among))(*(pointer(packed[i]) for i in among))
            for part, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
                calls.append(
                    Search(
                        pointer(self._map),
                        pointer(self._rows),
                        queries[item, start:].data_ptr(),
                        end - start,
                        table,
                        len(among),
                        k,
                        distances[item, start:].data_ptr(),
                        ids[item, start:].data_ptr(),
                        _address(stop),
                        counts[item, part].ctypes.data,
                    )
                )
        _run(self.kernels.search, calls, stop, "queries")
        self.counts = counts.sum((0, 1))
        return distances, ids

    def _packed(self, images: Tensor) -> dict[int, Packed]:
        """Return images' packed rows, and keep them; others go where there are too many."""
        wanted = np.unique(images.numpy()).tolist()
        with self._lock:
            missing = [i for i in wanted if i not in self._images]
            made = side_by_side(self._pack, missing) if missing else []
            if NO_MEMORY in made:
                raise MemoryError("out of memory: a gallery could not be packed")
            if NOT_FINITE in made:
                raise ValueError("gallery hold NaN or infinite values")
            self._images.update(zip(missing, made, strict=True))
            for i in wanted:
                self._images.move_to_end(i)
            most = max(len(wanted), KEEP // (-(-self.per_image // ROWS) * self._block))
            found = {i: self._images[i][0] for i in wanted}
            alive = [self._images[i] for i in wanted]
            while len(self._images) > most:
                self._images.popitem(last=False)
        self._alive = alive
        return found

    def _pack(self, image: int) -> tuple[Packed, Any] | int:
        first = image * self.per_image
        rows = min(self.per_image, len(self.patches) - first)
        size = -(-rows // ROWS) * self._block
        room = np.empty(size + 64, np.uint8)
        blocks = room[-room.ctypes.data % 64 :]
        copies = np.empty(rows, np.int32)
        packed = Packed(blocks.ctypes.data, copies.ctypes.data, first, rows)
        status = self.kernels.pack(byref(self._map), byref(self._rows), byref(packed))
        return status if status != DONE else (packed, (room, copies))


def _address(value: c_int32) -> int:
    from ctypes import addressof

    return addressof(value)


def _run(function: Any, calls: list[Search], stop: c_int32, name: str) -> None:
    """Make calls side by side; what interrupts the wait stops them."""
    try:
        if len(calls) == 1:
            states = [function(byref(calls[0]))]
        else:
            states = side_by_side(lambda call: function(byref(call)), calls)
    except BaseException:
        stop.value = 1
        raise
    if NO_MEMORY in states:
        raise MemoryError("out of memory: a search found no room")
    if NOT_FINITE in states:
        raise ValueError(f"{name} hold NaN or infinite values")
