"""FAISS's search against a float64 brute force, where expanding a distance loses it."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spade_faiss.search.exhaustive import exhaustive_in_images
from tests.search.oracle import assert_exact

rows = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.floats(-100, 100, width=32),
)


def search(queries, gallery, k):
    found = exhaustive_in_images(
        torch.from_numpy(queries), torch.from_numpy(gallery), torch.zeros(1, dtype=torch.int64),
        len(gallery), k)
    return (part.numpy() for part in found)


@given(rows, st.integers(0, 99), st.sampled_from([1e-20, 1.0, 1e6]), st.integers(0, 4), st.data())
@settings(max_examples=100, deadline=None)
def test_near_rows_far_from_zero(gallery, seed, factor, exponent, data):
    """Rows that all but coincide, at any scale."""
    rng = np.random.default_rng(seed)
    gallery = (gallery + 1000 * rng.standard_normal(gallery.shape[1])).astype(np.float32)
    gallery = gallery[rng.integers(0, len(gallery), 3 * len(gallery))] * np.float32(factor)
    near = gallery[rng.integers(0, len(gallery), 7)]
    step = np.float32(factor) * rng.standard_normal(near.shape).astype(np.float32)
    queries = near + step * np.float32(10.0**-exponent)
    k = data.draw(st.integers(1, len(gallery)))
    distances, ids = search(queries, gallery, k)
    assert_exact(queries, gallery, k, distances, ids)


def test_many_rows_that_all_but_coincide():
    rng = np.random.default_rng(0)
    gallery = (1e4 + 1e-2 * rng.standard_normal((3000, 24))).astype(np.float32)
    queries = (1e4 + 1e-2 * rng.standard_normal((40, 24))).astype(np.float32)
    distances, ids = search(queries, gallery, 3)
    assert_exact(queries, gallery, 3, distances, ids)


def test_norms_whose_squares_leave_the_range_of_float32():
    rng = np.random.default_rng(0)
    gallery = (1e20 * (1 + 1e-3 * rng.standard_normal((300, 16)))).astype(np.float32)
    queries = gallery[:40] + np.float32(1e16) * rng.standard_normal((40, 16)).astype(np.float32)
    distances, ids = search(queries, gallery, 2)
    assert_exact(queries, gallery, 2, distances, ids)
