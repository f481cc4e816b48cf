import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spade_faiss.search import ENGINES, nearest, nearest_in_images


def brute_force(queries, gallery, k):
    """Squared distances in float64, ascending."""
    q, g = queries.astype(np.float64), gallery.astype(np.float64)
    everything = ((q[:, None, :] - g[None]) ** 2).sum(2)
    ids = np.argsort(everything, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(everything, ids, 1), ids, everything


def assert_exact(queries, gallery, k, distances, ids):
    expected, _, everything = brute_force(queries, gallery, k)
    assert distances.dtype == np.float32 and ids.dtype == np.int64
    assert distances.shape == ids.shape == (len(queries), k)
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-37)
    # Ties aside, the ids are those of the brute force: their true distances are as small.
    chosen = np.take_along_axis(everything, ids, 1)
    np.testing.assert_allclose(chosen, expected, rtol=1e-5, atol=1e-37)
    assert all(len(set(row)) == k for row in ids.tolist())
    assert (np.diff(distances, axis=1) >= 0).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("q, g, c, k", [(1, 1, 1, 1), (7, 33, 5, 33), (300, 2000, 24, 1),
                                        (50, 999, 112, 4)])
def test_random_vectors(engine, q, g, c, k):
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((q, c), np.float32)
    gallery = rng.standard_normal((g, c), np.float32)
    assert_exact(queries, gallery, k, *nearest(queries, gallery, k, engine))


def test_tensors_in_tensors_out():
    q, g = torch.randn(9, 6), torch.randn(40, 6)
    distances, ids = nearest(q, g, 3)
    assert isinstance(distances, torch.Tensor) and distances.dtype == torch.float32
    assert ids.dtype == torch.int64 and ids.device == q.device
    assert_exact(q.numpy(), g.numpy(), 3, distances.numpy(), ids.numpy())


@given(st.data(), st.integers(1, 6), st.integers(1, 5), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_images_only_searched_among_those_named(data, n_images, per_image, channels):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    patches = rng.integers(0, 4, (n_images * per_image, channels)).astype(np.float32)
    queries = rng.standard_normal((8, channels), np.float32)
    images = np.array(data.draw(st.lists(st.integers(0, n_images - 1), min_size=1, unique=True)))
    k = data.draw(st.integers(1, len(images) * per_image))
    distances, ids = nearest_in_images(queries, patches, images, per_image, k)
    assert set(np.unique(ids // per_image)) <= set(images.tolist())
    rows = (images[:, None] * per_image + np.arange(per_image)).ravel()
    expected, _, _ = brute_force(queries, patches[rows], k)
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-37)
    true = ((queries[:, None].astype(np.float64) - patches[ids]) ** 2).sum(2)
    np.testing.assert_allclose(distances, true, rtol=1e-5, atol=1e-37)


finite = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.floats(-100, 100, width=32),
)


@given(finite, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_vector_of_the_gallery_finds_itself(gallery, seed):
    order = np.random.default_rng(seed).permutation(len(gallery))
    distances, _ = nearest(gallery[order], gallery)
    assert (distances == 0).all()


def test_real_features_of_real_images(lite):
    from tests.conftest import texture

    features = lite(np.stack(texture("brick", 4)))
    for level in features.levels:
        patches = level.numpy().reshape(4, -1, level.shape[-1])
        queries, gallery = patches[0], patches[1:].reshape(-1, level.shape[-1])
        distances, _ = nearest(queries, gallery)
        for at in range(0, len(queries), 64):
            rows = slice(at, at + 64)
            expected, _, _ = brute_force(queries[rows], gallery, 1)
            np.testing.assert_allclose(distances[rows], expected, rtol=1e-5)


@pytest.mark.parametrize("queries, gallery, k, why", [
    (np.zeros((3, 4)), np.zeros((5, 3)), 1, "channels"),
    (np.zeros((3, 4)), np.zeros((5, 4)), 6, "k = 6"),
    (np.zeros((3, 4)), np.zeros((5, 4)), 0, "k = 0"),
    (np.zeros(4), np.zeros((5, 4)), 1, "queries have shape"),
    (np.full((3, 4), np.nan), np.zeros((5, 4)), 1, "queries hold NaN"),
    (np.zeros((3, 4)), np.full((5, 4), np.inf), 1, "gallery hold NaN"),
    (np.zeros((3, 4)), np.zeros((0, 4)), 1, "gallery have shape"),
])
def test_bad_input_is_explained(queries, gallery, k, why):
    with pytest.raises(ValueError, match=why):
        nearest(queries, gallery, k)


def test_an_unknown_engine_is_named():
    with pytest.raises(ValueError, match="warp"):
        nearest(np.zeros((1, 1)), np.zeros((1, 1)), engine="warp")
