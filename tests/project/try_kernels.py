"""Call all kernels that run here, by their C interface, and compare with a brute force in float64.

Run by its path, it imports whichever `spade_faiss` is installed. It prints the kernels' names. What
the kernels read lies in memory of just that size, so that a sanitizer sees each byte too far.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from ctypes import POINTER, byref, c_int32, pointer
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spade_faiss.search.native.library import (
    DONE,
    NOT_FINITE,
    ROWS,
    STOPPED,
    TERMS,
    Kernels,
    Map,
    Packed,
    Rows,
    Search,
    runnable,
)

QUERIES = 37
FIRST_BYTES = 0, 4, 45
"""Where rows start in memory: FAISS's files have a header of 45 bytes."""
Array = npt.NDArray[Any]


class Case(NamedTuple):
    """What is searched."""

    values: str
    dtype: str
    channels: int
    rows: int
    k: int
    turned: bool
    per_image: int
    first_byte: int


def cases() -> Iterator[Case]:
    """Yield what may go wrong: odd shapes, ends of tiles, ties, and values at the range's ends."""
    number = 0
    for values, dtype, channels, rows, turned in product(
        ("normal", "ties", "huge", "tiny", "mixed"),
        ("float32", "float16"),
        (1, 7, 24, 130),
        (1, 15, 16, 17, 333),
        (False, True),
    ):
        for k in sorted({1, min(3, rows), rows}):
            number += 1
            per_image = rows if number % 2 else 16
            yield Case(values, dtype, channels, rows, k, turned, per_image, FIRST_BYTES[number % 3])
    for dtype, turned in product(("float32", "float16"), (False, True)):
        yield Case("hard", dtype, 24, 9001, 2, turned, 1000, 45)


def numbers(rng: np.random.Generator, kind: str, shape: tuple[int, int], dtype: str) -> Array:
    """Return float64 values of a kind that a type holds."""
    some = rng.standard_normal(shape)
    if kind == "ties":
        return rng.integers(0, 2, shape).astype(float)
    if kind == "huge":
        return np.clip(some, -3, 3) * (2e4 if dtype == "float16" else 1e30)
    if kind == "tiny":
        return some * (1e-6 if dtype == "float16" else 1e-40)
    if kind == "mixed":
        span = 3 if dtype == "float16" else 25
        return np.clip(some, -3, 3) * 10 ** rng.uniform(-span, span, (shape[0], 1))
    if kind == "hard":  # by one channel, rounding hides what the others say
        some[:, 1:] *= 1e-3
        some[:, 0] = np.sign(some[:, 0])
    return some


def placed(values: Array, first_byte: int) -> Array:
    """Copy values to memory that ends with them."""
    room = np.empty(first_byte + values.nbytes, np.uint8)
    copy: Array = np.ndarray(values.shape, values.dtype, room, first_byte)
    copy[...] = values
    return copy


class Gallery:
    """Rows and what maps them, as a kernel wants them."""

    def __init__(self, kernels: Kernels, rows: Array, turned: bool, per_image: int) -> None:
        channels = rows.shape[1]
        self.kernels, self.rows = kernels, rows
        wide = rows.astype(np.float64)
        self.centre = placed(np.nan_to_num(wide.mean(0)).astype(np.float32), 4)
        norm = np.sqrt(np.square(wide - self.centre).sum(1).max())
        unit = 2.0 ** np.clip(np.ceil(np.log2(norm)), -100, 120) if 0 < norm < np.inf else 1.0
        kept, padded = channels, 0
        self.axes = np.empty(0, np.float32)
        if turned:
            kept = max(1, channels // 3)
            padded = -(-kept // 16) * 16
            basis = np.linalg.qr(np.random.default_rng(1).standard_normal((channels, kept)))[0]
            self.axes = placed(np.pad(basis, ((0, 0), (0, padded - kept))).astype(np.float32), 4)
        width = -(-(kept + turned) // kernels.multiple) * kernels.multiple
        self.map = Map(
            centre=self.centre.ctypes.data,
            axes=self.axes.ctypes.data if turned else None,
            unit=unit,
            rest=0.25 if turned else 0.0,
            channels=channels,
            kept=kept,
            rests=turned,
            padded=padded,
            width=width,
        )
        self.given = Rows(rows.ctypes.data, len(rows), rows.dtype == np.float16, 0)
        block = width * ROWS + TERMS
        self.images, self.rooms = [], []
        for first in range(0, len(rows), per_image):
            count = min(per_image, len(rows) - first)
            room = np.empty(-(-count // ROWS) * block + 64, np.uint8)
            start = -room.ctypes.data % 64
            room = room[start : start + len(room) - 64]
            copies = np.empty(count, np.int32)
            self.rooms.append((room, copies))
            self.images.append(Packed(room.ctypes.data, copies.ctypes.data, first, count))

    def pack(self) -> int:
        """Pack all images, and return the last status."""
        return max(
            self.kernels.pack(byref(self.map), byref(self.given), byref(one)) for one in self.images
        )

    def search(
        self, queries: Array, k: int, *, direct: bool = False, stop: int = 0
    ) -> tuple[int, Array, Array, Array]:
        """Return the status, distances and ids [queries, k], and counts."""
        distances = np.empty((len(queries), k), np.float32)
        ids = np.empty((len(queries), k), np.int64)
        counts, stopped = np.zeros(3, np.int64), c_int32(stop)
        whole = [Packed(None, None, 0, len(self.rows))]
        images = whole if direct else self.images
        table = (POINTER(Packed) * len(images))(*map(pointer, images))
        asked = Search(
            pointer(self.map),
            pointer(self.given),
            queries.ctypes.data,
            len(queries),
            table,
            len(images),
            k,
            distances.ctypes.data,
            ids.ctypes.data,
            None,
            counts.ctypes.data,
        )
        asked.stop = np.frombuffer(stopped, np.int32).ctypes.data
        status = (self.kernels.direct if direct else self.kernels.search)(byref(asked))
        return status, distances, ids, counts


def check(kernels: Kernels, case: Case) -> None:
    """Search both ways; tell the first difference from a brute force."""
    rng = np.random.default_rng(0)
    dtype = np.dtype(case.dtype)
    shape = case.rows, case.channels
    rows = placed(numbers(rng, case.values, shape, case.dtype).astype(dtype), case.first_byte)
    queries = numbers(rng, case.values, (QUERIES, case.channels), case.dtype).astype(np.float32)
    queries[::3] = rows[rng.integers(0, case.rows, len(queries[::3]))]
    queries = placed(queries, 4)
    everything = np.empty((QUERIES, case.rows))
    for each, query in zip(everything, queries.astype(np.float64), strict=True):
        each[:] = np.square(rows.astype(np.float64) - query).sum(1)
    expected = np.sort(everything, 1)[:, : case.k]
    gallery = Gallery(kernels, rows, case.turned, case.per_image)
    assert gallery.pack() == DONE
    for direct in (False, True):
        status, distances, ids, counts = gallery.search(queries, case.k, direct=direct)
        assert status == DONE
        assert ((ids >= 0) & (ids < case.rows)).all()
        assert (np.diff(np.sort(ids, 1), axis=1) > 0).all()
        with np.errstate(over="ignore"):
            wanted = expected.astype(np.float32)
        # What float32 cannot hold is no distance: under 1e-37 it loses digits.
        np.testing.assert_allclose(distances, wanted, rtol=1e-5, atol=1e-37)
        chosen = np.take_along_axis(everything, ids, 1)
        np.testing.assert_allclose(chosen, expected, rtol=1e-5, atol=1e-37)
        if case.values == "hard" and not direct:
            assert counts[1] > 0, "no query went on with products"


def check_refusals(kernels: Kernels) -> None:
    """See that what is not finite is refused, and that a search stops when it is told to."""
    rng = np.random.default_rng(0)
    for wrong, dtype in product((np.nan, np.inf, -np.inf), (np.float32, np.float16)):
        rows = placed(rng.standard_normal((40, 24)).astype(dtype), 45)
        queries = placed(rng.standard_normal((5, 24)).astype(np.float32), 4)
        gallery = Gallery(kernels, rows, False, 16)
        assert gallery.pack() == DONE
        for direct in (False, True):
            assert gallery.search(queries, 1, direct=direct, stop=1)[0] == STOPPED
        queries[4, 23] = wrong
        for direct in (False, True):
            assert gallery.search(queries, 1, direct=direct)[0] == NOT_FINITE
        rows[39, 23] = wrong
        assert gallery.pack() == NOT_FINITE


def main() -> None:
    """Try all kernels that run here, or those that are named."""
    found = runnable()
    for name in sys.argv[1:] or found:
        for case in cases():
            try:
                check(found[name], case)
            except AssertionError as error:
                raise AssertionError(f"{name}: {case}: {error}") from error
        check_refusals(found[name])
        print(name, flush=True)


if __name__ == "__main__":
    main()
