import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spade_faiss.search import LevelSearch, nearest, nearest_in_images
from tests.conftest import examples, texture

from .oracle import assert_exact, brute_force
from .vectors import KINDS, hard_vectors


@given(
    st.sampled_from(KINDS), st.integers(1, 40), st.integers(1, 150), st.integers(1, 40), st.data()
)
@example("large norms", 40, 150, 24, None)
@example("near ties", 40, 150, 24, None)
@examples(150)
def test_every_engine_equals_brute_force(engine, kind, q, g, channels, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)) if data else 0)
    k = data.draw(st.sampled_from([1, min(3, g), g])) if data else 2
    vectors = hard_vectors(kind, q + g, channels, rng)
    queries, gallery = vectors[:q], vectors[q:]
    assert_exact(queries, gallery, k, *nearest(queries, gallery, k, engine))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "q, g, channels, k",
    [
        (1, 1, 1, 1),
        (300, 3000, 24, 1),
        (300, 2500, 1, 1),
        (50, 999, 112, 4),
        (24, 5000, 300, 2),
    ],
)
def test_larger_searches(engine, kind, q, g, channels, k):
    vectors = hard_vectors(kind, q + g, channels, np.random.default_rng(0))
    queries, gallery = vectors[:q], vectors[q:]
    assert_exact(queries, gallery, k, *nearest(queries, gallery, k, engine))


def test_tensors_in_tensors_out(engine):
    q, g = torch.randn(9, 6), torch.randn(40, 6)
    distances, ids = nearest(q, g, 3, engine)
    assert isinstance(distances, torch.Tensor) and distances.dtype == torch.float32
    assert ids.dtype == torch.int64 and ids.device == q.device
    assert_exact(q.numpy(), g.numpy(), 3, distances.numpy(), ids.numpy())


@given(st.data(), st.integers(1, 6), st.integers(1, 40), st.integers(1, 30), st.integers(1, 3))
@examples(60)
def test_images_only_searched_among_those_named(engine, data, n, per_image, channels, batch):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    patches = rng.integers(0, 4, (n * per_image, channels)).astype(np.float32)
    queries = rng.standard_normal((batch, 8, channels), np.float32)
    of = data.draw(st.integers(1, n))
    images = np.array([rng.permutation(n)[:of] for _ in range(batch)])
    k = data.draw(st.integers(1, of * per_image))
    distances, ids = nearest_in_images(queries, patches, images, per_image, k, engine)
    for i in range(batch):
        assert set(np.unique(ids[i] // per_image)) <= set(images[i].tolist())
        rows = (images[i][:, None] * per_image + np.arange(per_image)).ravel()
        expected, _ = brute_force(queries[i], patches[rows], k)
        np.testing.assert_allclose(distances[i], expected, rtol=1e-5, atol=1e-37)
        true = ((queries[i][:, None].astype(np.float64) - patches[ids[i]]) ** 2).sum(2)
        np.testing.assert_allclose(distances[i], true, rtol=1e-5, atol=1e-37)


def test_more_neighbours_than_an_image_has_patches(engine):
    """No score is then known to be reached, so bounds under zero may be of rows that count."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        for per_image in (1, 2):
            patches = rng.standard_normal((4 * per_image, 1)).astype(np.float32)
            queries = 2 * rng.standard_normal((1, 30, 1)).astype(np.float32)
            distances, _ = nearest_in_images(
                queries, patches, np.arange(4)[None], per_image, 3, engine
            )
            expected, _ = brute_force(queries[0], patches, 3)
            np.testing.assert_allclose(distances[0], expected, rtol=1e-5, atol=1e-37)


finite = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.floats(-100, 100, width=32),
)


@given(finite, st.integers(0, 99))
@examples(60)
def test_a_vector_of_the_gallery_finds_itself(engine, gallery, seed):
    order = np.random.default_rng(seed).permutation(len(gallery))
    distances, _ = nearest(gallery[order], gallery, 1, engine)
    assert (distances == 0).all()


@pytest.fixture(scope="module")
def brick(lite):
    """The levels of four images' features, each [4, patches, C]."""
    levels = lite(np.stack(texture("brick", 4))).levels
    return [level.flatten(1, 2).numpy() for level in levels]


def test_real_features_of_real_images(brick, engine):
    for patches in brick:
        queries, gallery = patches[0], np.concatenate(patches[1:])
        distances, ids = nearest(queries, gallery, 1, engine)
        some = slice(None, None, 4)
        assert_exact(queries[some], gallery, 1, distances[some], ids[some])


@pytest.mark.usefixtures("fastest")
def test_a_gallery_that_was_searched_before_gives_the_same(lite):
    """What is prepared for some images serves a later search among others."""
    levels = lite(np.stack(texture("gravel", 6))).levels
    patches = levels[1].reshape(-1, levels[1].shape[-1])
    per_image = len(patches) // 6
    kept = LevelSearch(patches, per_image)
    for images in ([[1, 4]], [[4, 5], [0, 2]], [[5, 4], [0, 1]], [[0, 1], [1, 0]]):
        among = torch.tensor(images)
        queries = patches[: len(images) * per_image].view(len(images), per_image, -1) + 0.25
        near, ids = kept.search(queries, among, 1, "screened")
        expected, _ = nearest_in_images(queries, patches, among, per_image, 1, "faiss")
        torch.testing.assert_close(near, expected, rtol=1e-5, atol=0)
        gap = (queries - patches[ids[..., 0]]).double().square().sum(2)
        torch.testing.assert_close(near[..., 0], gap.float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "queries, gallery, k, why",
    [
        (np.zeros((3, 4)), np.zeros((5, 3)), 1, "channels"),
        (np.zeros((3, 4)), np.zeros((5, 4)), 6, "k = 6"),
        (np.zeros((3, 4)), np.zeros((5, 4)), 0, "k = 0"),
        (np.zeros(4), np.zeros((5, 4)), 1, "queries have shape"),
        (np.full((3, 4), np.nan), np.zeros((5, 4)), 1, "queries hold NaN"),
        (np.zeros((3, 4)), np.full((5, 4), np.inf), 1, "gallery hold NaN"),
        (np.zeros((3, 4)), np.zeros((0, 4)), 1, "gallery have shape"),
    ],
)
def test_bad_input_is_explained(queries, gallery, k, why):
    with pytest.raises(ValueError, match=why):
        nearest(queries, gallery, k)


def test_other_images_are_not_even_read(engine):
    """They may be on a disk; here they hold NaN, which would show in anything made of them."""
    rng = np.random.default_rng(0)
    patches = np.full((40 * 50, 24), np.nan, np.float32)
    rows = np.concatenate([np.arange(i * 50, (i + 1) * 50) for i in (3, 17, 39)])
    patches[rows] = rng.standard_normal((150, 24), np.float32)
    queries = rng.standard_normal((30, 24), np.float32)
    images = np.array([[17, 39, 3]])
    distances, ids = nearest_in_images(queries[None], patches, images, 50, 1, engine)
    assert_exact(queries, patches[rows], 1, distances[0], np.searchsorted(rows, ids[0]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["queries", "gallery"])
@pytest.mark.parametrize(
    "rows", [(3, 5, 4), (300, 3000, 64)]
)  # few enough to compare all pairs, or not
def test_one_value_that_is_not_finite_is_found(engine, value, where, rows):
    rng = np.random.default_rng(0)
    q, g, channels = rows
    given = {
        "queries": rng.standard_normal((q, channels), np.float32),
        "gallery": rng.standard_normal((g, channels), np.float32),
    }
    given[where][-1, -1] = value
    with pytest.raises(ValueError, match=f"{where} hold NaN or infinite"):
        nearest(**given, engine=engine)


def test_auto_is_one_of_them():
    rng = np.random.default_rng(0)
    queries, gallery = (rng.standard_normal((rows, 40), np.float32) for rows in (300, 2000))
    assert_exact(queries, gallery, 3, *nearest(queries, gallery, 3))


def test_an_unknown_engine_is_named():
    with pytest.raises(ValueError, match="warp"):
        nearest(np.zeros((1, 1)), np.zeros((1, 1)), engine="warp")


def test_an_engine_that_needs_a_gpu_says_so():
    with pytest.raises(ValueError, match="needs CUDA"):
        nearest(np.zeros((1, 1)), np.zeros((1, 1)), engine="triton")
