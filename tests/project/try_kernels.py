"""Search with all kernels that run here, and compare with a brute force in float64.

Run by its path, it imports whichever `spade_faiss` is installed. It prints the kernels' names. The
rows lie in memory of just their size, so that a sanitizer sees each byte too far.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from spade_faiss.search.native import WAYS, NativeGallery, runnable, search_directly
from spade_faiss.search.native.axes import Axes
from spade_faiss.search.native.library import Kernels

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
    way: int


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
            first_byte, way = FIRST_BYTES[number % 3], WAYS[number // 6 % 3]
            yield Case(values, dtype, channels, rows, k, turned, per_image, first_byte, way)
    for dtype, turned in product(("float32", "float16"), (False, True)):
        yield Case("hard", dtype, 24, 9001, 2, turned, 1000, 45, WAYS[turned + 1])


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


def placed(values: Array, first_byte: int) -> torch.Tensor:
    """Copy values to memory that ends with them."""
    room = np.empty(first_byte + values.nbytes, np.uint8)
    copy: Array = np.ndarray(values.shape, values.dtype, room, first_byte)
    copy[...] = values
    return torch.from_numpy(copy)


def axes_of(rows: Array, turned: bool) -> Axes:
    """Return all coordinates, or a third of some that are turned, and the norm of the others."""
    channels = rows.shape[1]
    wide = rows.astype(np.float64)
    centre = wide.mean(0)
    norm = np.sqrt(np.square(wide - centre).sum(1).mean())
    unit = 2.0 ** np.clip(np.ceil(np.log2(max(norm, 1e-300))), -100, 120)
    placed_centre = placed(centre.astype(np.float32), 4)
    if not turned:
        return Axes(placed_centre, None, channels, unit)
    kept = max(1, channels // 3)
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((channels, kept)))[0]
    padded = np.pad(basis, ((0, 0), (0, -kept % 16))).astype(np.float32)
    return Axes(placed_centre, placed(padded, 4), kept, unit, rests=True, rest=0.25)


def check(kernels: Kernels, case: Case) -> None:
    """Search both ways, and raise the first difference from a brute force."""
    rng = np.random.default_rng(0)
    shape = case.rows, case.channels
    rows = numbers(rng, case.values, shape, case.dtype).astype(case.dtype)
    queries = numbers(rng, case.values, (QUERIES, case.channels), case.dtype).astype(np.float32)
    queries[::3] = rows[rng.integers(0, case.rows, len(queries[::3]))]
    everything = np.empty((QUERIES, case.rows))
    for each, query in zip(everything, queries.astype(np.float64), strict=True):
        each[:] = np.square(rows.astype(np.float64) - query).sum(1)
    patches = placed(rows, case.first_byte)
    gallery = NativeGallery(kernels, patches, case.per_image, axes_of(rows, case.turned))
    images = torch.arange(-(-case.rows // case.per_image))[None]
    asked = placed(queries, 4)
    distances, ids = gallery.search(asked[None], images, case.k)
    check_found(distances[0].numpy(), ids[0].numpy(), everything)
    found = search_directly(kernels, asked.numpy(), patches.numpy(), case.k, case.way)
    check_found(*found, everything)


def check_found(distances: Array, ids: Array, everything: Array) -> None:
    """Compare what was found with all distances in float64 [queries, rows]."""
    assert ((ids >= 0) & (ids < everything.shape[1])).all(), "rows that are not there"
    assert (np.diff(np.sort(ids, 1), axis=1) > 0).all(), "a row was found twice"
    expected = np.sort(everything, 1)[:, : ids.shape[1]]
    # What float32 cannot hold is no distance: under 1e-37 it loses digits.
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(distances, expected.astype("f4"), rtol=1e-5, atol=1e-37)
    chosen = np.take_along_axis(everything, ids, 1)
    np.testing.assert_allclose(chosen, expected, rtol=1e-5, atol=1e-37)


def check_refusals(kernels: Kernels) -> None:
    """See that what is not finite is refused, wherever it is."""
    rng = np.random.default_rng(0)
    images = torch.arange(3)[None]
    for wrong, dtype in product((np.nan, np.inf, -np.inf), (np.float32, np.float16)):
        rows = rng.standard_normal((40, 24)).astype(dtype)
        axes = axes_of(rows, turned=False)
        queries = rng.standard_normal((5, 24)).astype(np.float32)
        for name, values in (("queries", queries), ("gallery", rows)):
            kept = values[-1, -1]
            values[-1, -1] = wrong
            asked, patches = placed(queries, 4), placed(rows, 45)
            gallery = NativeGallery(kernels, patches, 16, axes)
            refused(name, gallery.search, asked[None], images, 1)
            for way in WAYS:
                refused(name, search_directly, kernels, asked.numpy(), patches.numpy(), 1, way)
            values[-1, -1] = kept


def refused(name: str, search: Any, *arguments: Any) -> None:
    """Raise AssertionError if a search does not refuse what a name says."""
    try:
        search(*arguments)
    except ValueError as error:
        assert str(error).startswith(name), error
    else:
        raise AssertionError(f"{name} that hold no numbers were searched")


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
