"""Searches of levels by the compiled kernels against a float64 brute force."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spade_faiss.search import LevelSearch, nearest, nearest_in_images
from tests.conftest import examples
from tests.search.oracle import assert_exact
from tests.search.vectors import KINDS, hard_vectors


def laid_out(values, how):
    """Return a tensor of the same values that lie in memory in another way."""
    rows, channels = values.shape
    match how:
        case "together":
            return torch.from_numpy(values.copy())
        case "rows apart":
            room = torch.full((2 * rows, channels), torch.nan, dtype=torch.from_numpy(values).dtype)
            view = room[1::2]
        case "values apart":
            room = torch.full((rows, 3 * channels), torch.nan, dtype=torch.from_numpy(values).dtype)
            view = room[:, ::3]
        case "columns first":
            view = torch.empty(channels, rows, dtype=torch.from_numpy(values).dtype).T
    view.copy_(torch.from_numpy(values))
    return view


layouts = st.sampled_from(["together", "rows apart", "values apart", "columns first"])


def places_of(images, rows, per_image):
    """Return the rows of some images, ascending."""
    return np.concatenate(
        [np.arange(i * per_image, min(rows, (i + 1) * per_image)) for i in sorted(images)]
    )


def assert_found(level, queries, images, k):
    """Search a level for a batch of queries, each in images of its own, and check what is found."""
    distances, ids = level.search(queries, torch.from_numpy(images), k, "screened")
    stored = level.patches.float().numpy()
    for item, among in enumerate(images):
        rows = places_of(among, len(stored), level.per_image)
        assert np.isin(ids[item].numpy(), rows).all()
        places = np.searchsorted(rows, ids[item].numpy())
        assert_exact(queries[item].numpy(), stored[rows], k, distances[item].numpy(), places)


@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 300),
    channels=st.integers(1, 200),
    per_image=st.integers(1, 300),
    batch=st.integers(1, 3),
    count=st.integers(1, 40),
    half=st.booleans(),
    layout=layouts,
    asked=layouts,
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
@examples(300)
def test_any_shape_and_layout(
    kernel, kind, rows, channels, per_image, batch, count, half, layout, asked, seed, data
):
    rng = np.random.default_rng(seed)
    vectors = hard_vectors(kind, rows + batch * count, channels, rng)
    if half:
        vectors *= np.float32(1000) / np.abs(vectors).max(initial=np.float32(1e-30))
    patches, queries = vectors[:rows], vectors[rows:]
    if half:
        patches = patches.astype(np.float16)
    n = -(-rows // per_image)
    of = data.draw(st.integers(1, n), "images")
    images = np.stack([rng.permutation(n)[:of] for _ in range(batch)])
    fewest = min(len(places_of(among, rows, per_image)) for among in images)
    k = data.draw(st.one_of(st.just(1), st.just(fewest), st.integers(1, fewest)), "k")
    level = LevelSearch(laid_out(patches, layout), per_image)
    batches = laid_out(queries, asked).unflatten(0, (batch, count))
    assert_found(level, batches, images, k)
    assert_found(level, batches.flip(1), images[::-1].copy(), 1)  # and again, of what is kept


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@given(
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    rows=st.integers(1, 200),
    channels=st.integers(1, 70),
    per_image=st.integers(1, 80),
    data=st.data(),
)
@examples(100)
def test_a_value_that_is_not_finite_is_refused_where_it_is_asked_for(
    kernel, dtype, value, rows, channels, per_image, data
):
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((rows, channels)).astype(dtype)
    queries = torch.from_numpy(rng.standard_normal((1, 20, channels), np.float32))
    row = data.draw(st.integers(0, rows - 1), "row")
    channel = data.draw(st.integers(0, channels - 1), "channel")
    patches[row, channel] = value
    level = LevelSearch(patches, per_image)
    everything = np.arange(-(-rows // per_image))[None]
    others = everything[everything != row // per_image][None]
    for _ in range(2):  # nothing is kept of what was refused
        with pytest.raises(ValueError, match="gallery hold NaN or infinite"):
            level.search(queries, torch.from_numpy(everything), 1, "screened")
        if others.size:
            assert_found(level, queries, others, 1)
    patches[row, channel] = 0
    queries[0, row % 20, channel] = value
    with pytest.raises(ValueError, match="queries hold NaN or infinite"):
        LevelSearch(patches, per_image).search(queries, torch.from_numpy(everything), 1, "screened")


def test_nothing_is_read_of_a_float16_image_that_is_not_asked_for(kernel):
    """Its rows are infinite: whatever was made of them would be refused or show."""
    rng = np.random.default_rng(0)
    patches = np.full((6 * 500 - 100, 40), np.inf, np.float16)
    for image in (1, 5):
        rows = places_of([image], len(patches), 500)
        patches[rows] = rng.standard_normal((len(rows), 40))
    queries = torch.from_numpy(rng.standard_normal((2, 200, 40), np.float32))
    assert_found(LevelSearch(patches, 500), queries, np.array([[5, 1], [1, 5]]), 4)


def indistinct(kind, rows, channels, rng):
    """Return queries and rows of which 8 bits a coordinate cannot tell the nearest."""
    plain = rng.standard_normal((rows, channels))
    asked = rng.standard_normal((24, channels))
    match kind:
        case "a sphere":  # all as far from its middle, to a thousandth
            sphere = plain / np.linalg.norm(plain, axis=1)[:, None]
            return 1e-4 * asked, sphere * (1 + 1e-4 * rng.standard_normal((rows, 1)))
        case "far clusters":
            centres = 1e4 * rng.standard_normal((3, channels))
            near = centres[rng.integers(0, 3, 24)] + 1e-2 * asked
            return near, centres[rng.integers(0, 3, rows)] + 1e-2 * plain
        case "far clusters of copies":
            near, vectors = indistinct("far clusters", rows, channels, rng)
            return near, vectors[rng.integers(0, rows // 3, rows)]
        case "norms beyond float32":
            near, vectors = indistinct("far clusters", rows, channels, rng)
            return 1e16 * near, 1e16 * vectors
        case "far queries":  # more than their scales can say
            return 1e16 * asked, plain
        case "far rows":  # which may be too few for anyone to have expected them
            plain[rng.integers(0, rows, 40)] *= 1e19
            return 1e-4 * asked, plain / np.linalg.norm(plain, axis=1).clip(0, 100)[:, None]


@pytest.mark.parametrize(
    "kind",
    [
        "a sphere",
        "far clusters",
        "far clusters of copies",
        "norms beyond float32",
        "far queries",
        "far rows",
    ],
)
@given(
    rows=st.integers(5000, 9000),
    channels=st.integers(2, 70),
    pieces=st.integers(1, 9),
    k=st.sampled_from([1, 3, 60]),
    half=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@examples(20)
def test_rows_that_integers_cannot_tell_apart(kernel, kind, rows, channels, pieces, k, half, seed):
    """Too many of them remain, so that another stage takes over: it is as exact."""
    rng = np.random.default_rng(seed)
    queries, patches = (part.astype(np.float32) for part in indistinct(kind, rows, channels, rng))
    if half and np.abs(patches).max() < 6e4:
        patches = patches.astype(np.float16)
    per_image = -(-rows // pieces)
    images = np.random.default_rng(seed).permutation(-(-rows // per_image))[None]
    assert_found(LevelSearch(patches, per_image), torch.from_numpy(queries)[None], images, k)


@pytest.mark.parametrize("seed", range(3))
def test_rows_whose_roundings_all_add_up_are_not_lost(kernel, seed):
    """Each is the nearest by a little, and by integers as much further as rounding can make it."""
    rng = np.random.default_rng(seed)
    pairs, channels = 16, 256
    whole = rng.integers(-2, 3, (pairs, channels)).astype(np.float32)
    away = rng.choice([-1, 1], whole.shape)
    away[:, 0] = 0
    queries, nearest_rows, others = whole + away, whole + 0.3 * away, whole + away
    # The squared distances are 0.7² · 255 = 124.95 and 125.
    others[:, 1:126] += rng.choice([-1, 1], (pairs, 125))
    for rows in (queries, nearest_rows, others):
        rows[:, 0] = 126.99  # and so a coordinate's integer stands for itself
    rows = np.concatenate([others, -others, nearest_rows, -nearest_rows]).astype(np.float32)
    both = np.concatenate([queries, -queries]).astype(np.float32)
    # Of rows that are searched once, coordinates are taken as they are.
    near, ids = nearest_in_images(both[None], rows, np.arange(4)[None], 16, 1, "screened")
    assert_exact(both, rows, 1, near[0], ids[0])


@given(
    kind=st.sampled_from(KINDS),
    channels=st.integers(1, 70),
    k=st.sampled_from([1, 4]),
    beside=st.sampled_from([0, 1e-4, 0.05]),
    half=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@examples(8)
def test_queries_beside_few_of_many_rows(kernel, kind, channels, k, beside, half, seed):
    """What is known of a few bits decides, as few rows pass: among fewer rows it seldom does."""
    rng = np.random.default_rng(seed)
    rows = hard_vectors(kind, 20_000, channels, rng)
    here, there = rows[rng.integers(0, len(rows), (2, 40))].astype(np.float64)
    queries = (here + beside * (there - here)).astype(np.float32)
    if half and np.abs(rows).max() < 6e4:
        rows = rows.astype(np.float16)
    assert_found(LevelSearch(rows, 1_000), torch.from_numpy(queries)[None], np.arange(20)[None], k)


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_16_bits_move_away_and_others_that_they_move_near_are_told_apart(kernel, seed):
    """In bfloat16 the nearest lie one step away in each coordinate, and the others at the query."""
    rng = np.random.default_rng(seed)
    pairs, channels, step = 16, 24, 2.0**-7
    whole = rng.integers(141, 243, (pairs, channels)) * step  # from 1.1 to 1.9
    aside = step * rng.choice([-1, 1], whole.shape)
    queries, nearest_rows, others = whole + 0.49 * aside, whole + 0.51 * aside, whole + 0.46 * aside
    rows = np.concatenate([others, -others, nearest_rows, -nearest_rows]).astype(np.float32)
    both = np.concatenate([queries, -queries]).astype(np.float32)
    near, ids = nearest_in_images(both[None], rows, np.arange(4)[None], 16, 1, "screened")
    assert (ids[0] >= 2 * pairs).all()
    assert_exact(both, rows, 1, near[0], ids[0])


@pytest.fixture(scope="module")
def crowd():
    """Rows of which most are equal, others that are not, and queries beside the equal ones."""
    rng = np.random.default_rng(0)
    distinct = rng.standard_normal((20_000, 48)).astype(np.float32)
    copies = distinct.copy()
    copies[rng.permutation(20_000)[:19_000]] = distinct[0]
    queries = np.repeat(distinct[:1], 200, 0)
    queries[100:] += 1e-3 * rng.standard_normal((100, 48), np.float32)
    return copies, distinct, queries


@pytest.mark.parametrize("per_image", [20_000, 3_000])
@pytest.mark.parametrize("k", [1, 3, 50])
def test_copies_by_the_thousand_are_found_one_by_one(kernel, crowd, per_image, k):
    copies, _, queries = crowd
    queries = queries[90:110]
    images = np.arange(-(-20_000 // per_image))[None]
    assert_found(LevelSearch(copies, per_image), torch.from_numpy(queries)[None], images, k)


@pytest.mark.parametrize("k", [1, 50])
def test_copies_cost_no_more_than_other_rows(kernel, crowd, k):
    copies, distinct, queries = crowd

    def cost(gallery):
        times = []
        for _ in range(5):
            start = time.process_time()
            nearest(queries, gallery, k, "screened")
            times.append(time.process_time() - start)
        return min(times)

    assert cost(copies) < 3 * cost(distinct) + 0.01
