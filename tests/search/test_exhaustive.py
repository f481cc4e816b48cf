"""FAISS's searches against a float64 brute force, where expanding a distance loses it."""

from contextlib import contextmanager

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spade_faiss.search import LevelSearch, nearest
from tests.conftest import examples
from tests.search.oracle import assert_exact

rows = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.floats(-100, 100, width=32),
)


@contextmanager
def going(way):
    """Have FAISS expand distances whatever it would do for so few, but for "differences"."""
    before = faiss.cvar.distance_compute_blas_threshold
    if way != "differences":
        faiss.cvar.distance_compute_blas_threshold = 1
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = before


def search(queries, gallery, k, way):
    with going(way):
        return nearest(queries, gallery, k, "faiss")


every_way = pytest.mark.parametrize(
    "count, way",
    [
        (1, "differences"),
        (7, "differences"),
        (70, "differences"),
        (7, "expanded"),
        (70, "expanded"),
    ],
)


@every_way
@given(rows, st.integers(0, 99), st.sampled_from([1e-20, 1.0, 1e6]), st.integers(0, 4), st.data())
@examples(100)
def test_near_rows_far_from_zero(count, way, gallery, seed, factor, exponent, data):
    """Rows that all but coincide, at any scale."""
    rng = np.random.default_rng(seed)
    gallery = (gallery + 1000 * rng.standard_normal(gallery.shape[1])).astype(np.float32)
    gallery = gallery[rng.integers(0, len(gallery), 3 * len(gallery))] * np.float32(factor)
    near = gallery[rng.integers(0, len(gallery), count)]
    step = np.float32(factor) * rng.standard_normal(near.shape).astype(np.float32)
    queries = near + step * np.float32(10.0**-exponent)
    k = data.draw(st.integers(1, len(gallery)))
    distances, ids = search(queries, gallery, k, way)
    assert_exact(queries, gallery, k, distances, ids)


@every_way
def test_many_rows_that_all_but_coincide(count, way):
    rng = np.random.default_rng(0)
    gallery = (1e4 + 1e-2 * rng.standard_normal((3000, 24))).astype(np.float32)
    queries = (1e4 + 1e-2 * rng.standard_normal((count, 24))).astype(np.float32)
    distances, ids = search(queries, gallery, 3, way)
    assert_exact(queries, gallery, 3, distances, ids)


@every_way
@pytest.mark.parametrize(("spread", "k"), [(1e-3, 2), (0.5, 1)])
def test_norms_whose_squares_leave_the_range_of_float32(count, way, spread, k):
    """With the larger spread, all distances but the nearest's do as well."""
    rng = np.random.default_rng(0)
    gallery = (1e20 * (1 + spread * rng.standard_normal((300, 16)))).astype(np.float32)
    queries = gallery[:count] + np.float32(1e16) * rng.standard_normal((count, 16)).astype(
        np.float32
    )
    distances, ids = search(queries, gallery, k, way)
    assert_exact(queries, gallery, k, distances, ids)


@every_way
@pytest.mark.parametrize("of", ["queries", "gallery"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(count, way, of, value):
    both = {"queries": np.ones((count, 4), np.float32), "gallery": np.ones((300, 4), np.float32)}
    both[of][-1, -1] = value
    with pytest.raises(ValueError, match=f"{of} hold NaN or infinite values"):
        search(both["queries"], both["gallery"], 1, way)


@every_way
def test_rows_that_lie_apart(count, way):
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((count, 48)).astype(np.float32)[:, ::2]
    gallery = rng.standard_normal((600, 48)).astype(np.float32)[::2, ::2]
    distances, ids = search(queries, gallery, 2, way)
    assert_exact(queries, gallery, 2, distances, ids)


@pytest.fixture(scope="module")
def scattered():
    """Whole numbers in images of 24 MiB, too much to gather at once; the last one is short."""
    patches = np.zeros((4 * 1024 + 300, 6144), np.float32)
    for image in (0, 2, 4):
        rows = patches[image * 1024 : (image + 1) * 1024]
        rows[:] = np.random.default_rng(image).integers(0, 99, rows.shape, np.uint8)
    return patches


@pytest.mark.parametrize("way", ["differences", "expanded"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_images_here_and_there_of_which_the_last_is_short(way, dtype, scattered):
    stored = scattered.astype(dtype, copy=False)
    rng = np.random.default_rng(0)
    queries = rng.integers(0, 99, (3, 6144)).astype(np.float32)
    images = torch.tensor([[4, 0, 2]])
    with going(way):
        distances, ids = LevelSearch(stored, 1024).search(
            torch.from_numpy(queries)[None], images, 3, "faiss"
        )
    rows = np.concatenate([np.arange(len(stored))[i * 1024 : i * 1024 + 1024] for i in (0, 2, 4)])
    assert np.isin(ids.numpy(), rows).all()
    places = np.searchsorted(rows, ids[0].numpy())
    assert_exact(queries, scattered[rows], 3, distances[0].numpy(), places)
