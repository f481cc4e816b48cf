import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spade_faiss import SpadeError
from spade_faiss.search import Gallery, gallery_search, nearest_in_gallery
from spade_faiss.search.approximate import search
from tests.conftest import examples


def gallery_of(patches, rows=None, factory=None, params=""):
    kept = patches if rows is None else patches[rows]
    index = None
    if factory:
        index = faiss.index_factory(patches.shape[1], factory)
        index.train(kept)
        index.add(kept)
        faiss.ParameterSpace().set_index_parameters(index, params)
    return Gallery(kept, rows, index, kept.nbytes)


def brute_force(queries, patches, allowed, k):
    """Squared distances in float64 to the k nearest of the rows allowed, ascending."""
    far = ((queries[:, None].astype(np.float64) - patches[None, allowed]) ** 2).sum(2)
    return np.sort(far, axis=1)[:, :k]


@given(
    st.data(),
    st.integers(2, 7),
    st.integers(1, 9),
    st.integers(1, 5),
    st.sampled_from((None, "Flat", "HNSW8")),
    st.booleans(),
)
@examples(100)
def test_leaving_an_image_out_equals_a_brute_force(
    data, images, per_image, channels, factory, coreset
):
    rng = np.random.default_rng(data.draw(st.integers(0, 9999)))
    patches = rng.standard_normal((images * per_image, channels), np.float32)
    rows = np.arange(len(patches))
    if coreset:
        rows = np.sort(rng.choice(rows, data.draw(st.integers(1, len(rows))), replace=False))
    image = data.draw(st.integers(0, images - 1))
    whose = data.draw(st.lists(st.integers(0, images - 1), unique=True, max_size=2))
    own = [range(one * per_image, (one + 1) * per_image) for one in whose]
    # Queries are an image's own patches: where it is left out, the nearest are just those.
    queries = patches[image * per_image : (image + 1) * per_image]
    gallery = gallery_of(patches, rows if coreset else None, factory, "")
    allowed = np.array([row for row in rows if row // per_image not in whose], np.int64)
    k = data.draw(st.integers(1, per_image + 1))
    if k > len(allowed):
        with pytest.raises(SpadeError, match=f"kappa = {k}"):
            nearest_in_gallery(queries, gallery, k, own)
        return
    distances, found = nearest_in_gallery(queries, gallery, k, own)
    assert distances.dtype == np.float32 and found.dtype == np.int64
    assert np.isin(found, allowed).all()
    assert all(len(set(row)) == k for row in found.tolist())
    true = ((queries[:, None].astype(np.float64) - patches[found]) ** 2).sum(2)
    np.testing.assert_allclose(distances, true, rtol=1e-5)
    if factory != "HNSW8":
        np.testing.assert_allclose(
            distances, brute_force(queries, patches, allowed, k), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "PQ4x4", "IVF4,Flat", "PCA6,SQ8"])
def test_an_image_whose_own_patches_are_all_nearer_than_any_other(factory, monkeypatch):
    rng = np.random.default_rng(0)
    near = rng.standard_normal((400, 8)).astype(np.float32)
    patches = np.concatenate([near, 50 + rng.standard_normal((400, 8)).astype(np.float32)])
    gallery = gallery_of(patches, None, factory, "nprobe=4" if factory[0] == "I" else "")
    if factory != "HNSW16":  # whose graph has no way from one group to the other
        monkeypatch.setattr(search, "nearest_outside", None)
    distances, found = nearest_in_gallery(near, gallery, 3, [range(400)])
    assert (found >= 400).all() and (distances > 8 * 40**2).all()
    exact = brute_force(near, patches, np.arange(400, 800), 1)
    assert (distances[:, 0] <= 1.2 * exact[:, 0]).all()


def test_a_query_whose_lists_are_empty_is_searched_exactly():
    rng = np.random.default_rng(0)
    # One list holds all of the image that is left out, and one list is probed.
    patches = np.concatenate([rng.standard_normal((100, 4)), 90 + rng.standard_normal((50, 4))])
    patches = patches.astype(np.float32)
    gallery = gallery_of(patches, None, "IVF2,Flat", "nprobe=1")
    plain = gallery.index.search(patches[:100], 101)[1]
    assert (plain[:, 100] == -1).all()
    distances, found = nearest_in_gallery(patches[:100], gallery, 2, [range(100)])
    np.testing.assert_allclose(
        distances, brute_force(patches[:100], patches, np.arange(100, 150), 2), rtol=1e-5
    )
    assert (found >= 100).all()


def test_distances_are_true_and_codes_only_name_candidates():
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((2000, 16), np.float32)
    queries = rng.standard_normal((300, 16), np.float32)
    gallery = gallery_of(patches, None, "PQ4x4")
    distances, found = nearest_in_gallery(queries, gallery)
    true = ((queries.astype(np.float64) - patches[found[:, 0]]) ** 2).sum(1)
    np.testing.assert_allclose(distances[:, 0], true, rtol=1e-5)
    exact = brute_force(queries, patches, np.arange(2000), 1)[:, 0]
    by_codes = patches[gallery.index.search(queries, 1)[1][:, 0]]
    by_codes = ((queries.astype(np.float64) - by_codes) ** 2).sum(1)
    assert exact.mean() < distances.mean() < 0.9 * by_codes.mean()


@pytest.mark.parametrize("size", [700, 3000])
def test_a_kept_search_finds_the_same(size):
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((4000, 24), np.float32)
    queries = rng.standard_normal((400, 24), np.float32)
    rows = np.sort(rng.choice(4000, size, replace=False))
    gallery = gallery_of(patches, rows, None)
    kept = gallery_search(gallery)
    for part in (queries, queries[:7]):
        for engine in ("auto", "screened"):
            distances, found = nearest_in_gallery(part, gallery, 2, [], engine, kept)
            np.testing.assert_allclose(distances, brute_force(part, patches, rows, 2), rtol=1e-5)
            assert np.isin(found, rows).all()


def test_what_faiss_raises_is_one_line():
    gallery = gallery_of(np.eye(8, dtype=np.float32), None, "IVF2,Flat", "nprobe=0")
    with pytest.raises(SpadeError, match="nprobe") as caught:
        nearest_in_gallery(np.eye(8, dtype=np.float32), gallery)
    assert "\n" not in str(caught.value) and ".cpp" not in str(caught.value)
