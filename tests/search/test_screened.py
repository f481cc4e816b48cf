import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spade_faiss.search import integers
from spade_faiss.search.screen import LARGEST_NORM
from spade_faiss.search.screened import _describe, make_screen, screened
from tests.conftest import examples, hazelnut_levels, texture

from .oracle import assert_exact, brute_force
from .test_nearest import KINDS, hard_vectors

needs_integers = pytest.mark.skipif(
    not integers.largest(), reason="needs a torch that multiplies integers exactly"
)
MODEST = [kind for kind in KINDS if kind not in ("huge", "mixed scales")]
PRECISIONS = [torch.bfloat16, torch.float32, pytest.param(torch.int8, marks=needs_integers)]


def among(images, per_image, total):
    """Return the rows of some images, and for every row its place among these, or -1."""
    rows = np.concatenate([np.arange(i * per_image, (i + 1) * per_image) for i in images])
    rows = rows[rows < total]
    place = np.full(total, -1)
    place[rows] = np.arange(len(rows))
    return rows, place


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", MODEST)
@pytest.mark.parametrize("per_image, k", [(40, 1), (97, 1), (196, 3), (500, 60)])
def test_all_precisions_are_exact(precision, kind, per_image, k):
    """Whole groups and filled ones, a last image that is short, images in any order."""
    rng = np.random.default_rng(per_image)
    vectors = hard_vectors(kind, 60 + 4 * per_image - per_image // 3, 20, rng)
    queries, gallery = vectors[:60], vectors[60:]
    images = np.array([3, 0, 1])
    rows, place = among(images, per_image, len(gallery))
    screen = make_screen(torch.from_numpy(gallery), per_image, precision)
    [(distances, ids)] = screened(screen, [torch.from_numpy(queries)], [images], k)
    assert np.isin(ids, rows).all()
    assert_exact(queries, gallery[rows], k, distances, place[ids])


@pytest.mark.parametrize("precision", PRECISIONS)
@given(
    st.sampled_from(MODEST),
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(1, 40),
    st.integers(1, 150),
    st.data(),
)
@examples(150)
def test_every_precision_equals_brute_force(precision, kind, q, n, per_image, channels, data):
    vectors = hard_vectors(
        kind, q + n * per_image, channels, np.random.default_rng(data.draw(st.integers(0, 999)))
    )
    queries, gallery = (
        vectors[:q],
        vectors[q : q + data.draw(st.integers((n - 1) * per_image + 1, n * per_image))],
    )
    k = data.draw(st.sampled_from([1, min(3, len(gallery)), len(gallery)]))
    screen = make_screen(
        torch.from_numpy(gallery),
        per_image,
        precision,
        data.draw(st.sampled_from([0, 1 << 30])),
        once=data.draw(st.booleans()),
    )
    [found] = screened(screen, [torch.from_numpy(queries)], [np.arange(n)], k)
    assert_exact(queries, gallery, k, *found)


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_bound_is_never_under_what_it_bounds(precision, once):
    """Of a group without a row better than the sample's best the bound only needs to say so."""
    rng = np.random.default_rng(1)
    for kind in ("plain", "near ties", "zeros", "large norms", "duplicates"):
        vectors = torch.from_numpy(hard_vectors(kind, 500, 33, rng))
        queries, gallery = vectors[:100], vectors[100:]
        screen = make_screen(gallery, 100, precision, 1 << 30, once=once)
        images = np.arange(4)
        one = screen.part(queries, images)
        _describe(screen, 1, one)
        screen.bound(one, 0, *screen.prepared(images))
        centred = queries.double() - screen.centre, gallery.double() - screen.centre
        scores = centred[0] @ centred[1].T - centred[1].square().sum(1) / 2
        scores = (scores + one.offset[:, None]).view(100, 4, 100)
        filled = torch.full((100, 4, screen.groups * screen.group), -torch.inf).double()
        filled[:, :, :100] = scores
        shape, along = (
            ((screen.groups, screen.group), 3)
            if screen.step == 1
            else ((screen.group, screen.groups), 2)
        )
        best = filled.view(100, 4, *shape).amax(along).view(100, -1).T
        bounds = one.bounds[: len(best)].T.contiguous().view(screen.low).T.double()
        # Rounding the product to the screen's own type may take a last digit of it.
        unit = 2.0**-8 if screen.low == torch.bfloat16 else 2.0**-24
        assert (bounds[best >= 0] >= (best[best >= 0] * (1 - unit))).all()
        assert (best.amax(0) >= 0).all(), "the sample's best row must itself stay in play"


def test_a_plain_search_in_bfloat16_errs_on_real_features_and_the_screen_does_not(lite):
    level = lite(np.stack(texture("gravel", 5))).levels[0]
    patches = level.reshape(5, -1, level.shape[-1])
    queries, gallery = patches[0, ::9].contiguous(), patches[1:].reshape(-1, patches.shape[-1])
    low = gallery.bfloat16()
    plain = ((queries.bfloat16() @ low.T).float() - low.float().square().sum(1) / 2).argmax(1)
    expected, everything = brute_force(queries.numpy(), gallery.numpy(), 1)
    got = np.take_along_axis(everything, plain.numpy()[:, None], 1)
    assert (got > expected * (1 + 1e-5)).any()
    screen = make_screen(gallery, patches.shape[1], torch.bfloat16)
    [(distances, ids)] = screened(screen, [queries], [np.arange(4)])
    assert_exact(queries.numpy(), gallery.numpy(), 1, distances, ids)


@pytest.mark.parametrize("keep", [0, 1 << 30])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_more_than_fits_at_a_time(monkeypatch, keep, precision):
    from spade_faiss.search import floats, screen
    from spade_faiss.search import screened as module

    patches = torch.from_numpy(np.random.default_rng(0).standard_normal((900, 8), np.float32))
    queries = torch.from_numpy(np.random.default_rng(1).standard_normal((700, 8), np.float32))
    monkeypatch.setattr(module, "_QUERIES", 16)
    monkeypatch.setattr(module, "_BOUNDS", 1 << 12)
    monkeypatch.setattr(module, "_RESCORED", 1 << 6)
    monkeypatch.setattr(screen.Screen, "most", 64)
    monkeypatch.setattr(integers.IntegerScreen, "most", 64)
    monkeypatch.setattr(screen, "LOWERED", 1 << 12)
    monkeypatch.setattr(screen, "_PREPARED", 1 << 10)
    monkeypatch.setattr(floats, "_PRODUCT", dict.fromkeys(floats._PRODUCT, 1 << 10))
    monkeypatch.setattr(floats, "_GATHERED", 1 << 13)
    some = np.array([7, 2, 3, 0, 9])  # in part one after another
    found = screened(
        make_screen(patches, 90, precision, keep), [queries, queries[:5]], [np.arange(10), some]
    )
    assert_exact(queries.numpy(), patches.numpy(), 1, *found[0])
    rows, place = among(some, 90, 900)
    assert_exact(queries[:5].numpy(), patches[rows].numpy(), 1, found[1][0], place[found[1][1]])


@needs_integers
@pytest.mark.parametrize("largest", [127, 64])
@pytest.mark.parametrize("bounds", [torch.bfloat16, torch.float32])
def test_integers_for_processors_of_all_kinds(monkeypatch, largest, bounds):
    monkeypatch.setattr(integers, "largest", lambda: largest)
    monkeypatch.setattr(integers, "bounds_type", lambda: bounds)
    rng = np.random.default_rng(largest)
    patches, queries = (rng.standard_normal((n, 48), np.float32) ** 3 for n in (5 * 60, 70))
    screen = make_screen(torch.from_numpy(patches), 60, torch.int8)
    assert (screen.largest, screen.low) == (largest, bounds)  # type: ignore[attr-defined]
    [(distances, ids)] = screened(screen, [torch.from_numpy(queries)], [np.arange(5)], 2)
    assert_exact(queries, patches, 2, distances, ids)


@pytest.mark.parametrize("most, exact", [(127, True), (64, True), (127, False)])
def test_integers_that_saturate_are_found_out(monkeypatch, most, exact):
    """As without VNNI, where two products are added in 16 bits, or with another fault."""

    def product_of(a, b, dtype):
        low, wide = (a.double() + 128), b.double()
        pairs = (low[:, None, :] * wide).view(len(a), len(b), -1, 2).sum(3)
        if most < 127:
            pairs = pairs.clamp(-(2**15), 2**15 - 1)
        return lambda: pairs.sum(2) - 128 * wide.sum(1) + (not exact)

    monkeypatch.setattr(integers, "product_of", product_of)
    integers.largest.cache_clear()
    try:
        assert integers.largest() == (most if exact else 0)
    finally:
        integers.largest.cache_clear()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_norms_whose_squares_overflow_are_refused(precision):
    patches = torch.ones(40, 4)
    patches[3] = 2 * LARGEST_NORM
    with pytest.raises(OverflowError):
        screened(make_screen(patches, 40, precision), [torch.ones(2, 4)], [np.arange(1)])


@pytest.mark.slow
def test_hazelnuts_all_patches(lite, hazelnut):
    """Every patch of every test image, against FAISS and, for a part, float64."""
    from spade_faiss.search import LevelSearch

    train, test = (
        hazelnut_levels(lite, hazelnut, pattern) for pattern in ("train/good/*.png", "test/*/*.png")
    )
    images = torch.arange(len(train[0])).expand(len(test[0]), -1)
    for gallery, queries in zip(train, test, strict=True):
        patches = gallery.flatten(0, 1)
        results = {
            engine: LevelSearch(patches, gallery.shape[1]).search(queries, images, 1, engine)
            for engine in ("faiss", "screened")
        }
        torch.testing.assert_close(results["screened"][0], results["faiss"][0], rtol=1e-5, atol=0)
        assert (results["screened"][1] == results["faiss"][1]).float().mean() > 0.9999
        if integers.largest():
            screen = make_screen(patches, gallery.shape[1], torch.int8, 1 << 30)
            found = screened(screen, list(queries), [one.numpy() for one in images])
            near = np.stack([one[0] for one in found])
            torch.testing.assert_close(
                results["screened"][0], torch.from_numpy(near), rtol=1e-5, atol=0
            )
        near, ids = (found.flatten() for found in results["screened"])
        asked, wide = queries.flatten(0, 1).double(), patches.double()
        best = smallest(asked, wide).float()
        torch.testing.assert_close(near, best, rtol=1e-5, atol=1e-6)
        chosen = (asked - wide[ids]).square().sum(1).float()
        torch.testing.assert_close(chosen, best, rtol=1e-5, atol=1e-6)


def smallest(queries, gallery):
    """Return each query's smallest squared distance, by a product small enough for the cache.

    float64's expansion is off by some 1e-13 of the norms: enough to find ties by.
    """
    columns = torch.cat([-2 * gallery, gallery.square().sum(1, keepdim=True)], 1).T.contiguous()
    rows = torch.cat([queries, torch.ones(len(queries), 1, dtype=torch.float64)], 1)
    least = [
        torch.stack([(some @ part).amin(1) for part in columns.split(2048, 1)]).amin(0)
        for some in rows.split(256)
    ]
    return torch.cat(least) + queries.square().sum(1)
