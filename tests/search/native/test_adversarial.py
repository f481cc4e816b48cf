"""Values chosen so that rounding, or the range of float32, goes the wrong way."""

import threading

import numpy as np
import pytest
import torch

from spade_faiss.search import LevelSearch
from spade_faiss.search.native import WAYS, gallery, search_directly
from spade_faiss.search.native.library import runnable
from tests.search.oracle import assert_exact, brute_force

FIRST, SECOND = torch.zeros(1, 1).long(), torch.ones(1, 1).long()


def second_of(small, large, queries, k):
    """Search an image in a level whose scale was taken from another one."""
    level = LevelSearch(np.concatenate([small, large]).astype(np.float32), len(small))
    level.search(torch.from_numpy(small[None, :1].astype(np.float32)), FIRST, 1, "screened")
    near, ids = level.search(torch.from_numpy(queries)[None], SECOND, k, "screened")
    return near[0].numpy(), ids[0].numpy() - len(small)


@pytest.mark.parametrize("far", [1e4, 1e6, 1e8])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_rows_that_wait_while_far_ones_are_compared_are_kept(kernel, far, k):
    """What is first known of a distance is `far`, and of that float32 holds seven digits."""
    rng = np.random.default_rng(0)
    small = rng.standard_normal((1024, 16)).astype(np.float32)
    rows = rng.standard_normal((1024, 16)).astype(np.float32)
    rows[:: 1024 // 16] *= far  # the first block
    queries = rng.standard_normal((400, 16)).astype(np.float32)
    near, ids = second_of(small, rows, queries, k)
    assert_exact(queries, rows, k, near, ids)


@pytest.mark.parametrize("far", [1e4, 1e6, 1e8])
def test_rows_that_wait_while_only_a_far_image_is_known_are_kept(kernel, far):
    """Scores beside such distances say little: rows that wait cannot be refused by them."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2560 + 320, 16))  # of the second image no row is looked at first
    rows[:2560] = far * np.linspace(1, 9, 2560)[:, None]  # and of the first one only one is wanted
    rows = rows.astype(np.float32)
    queries = rng.standard_normal((400, 16)).astype(np.float32)
    level = LevelSearch(rows, 2560)
    level.search(torch.from_numpy(queries[None, :1]), SECOND, 1, "screened")  # takes its scale
    near, ids = level.search(torch.from_numpy(queries[None]), torch.arange(2)[None], 1, "screened")
    assert_exact(queries, rows, 1, near[0].numpy(), ids[0].numpy())


def test_rows_that_wait_while_nothing_is_known_are_kept(kernel):
    """As more are wanted than were seen before; then one row's copies are as many."""
    rng = np.random.default_rng(0)
    rows = 1e4 * (1 + rng.random((960, 16)))
    rows[:64] = 10 + rng.standard_normal((64, 16))
    rows = np.repeat(rows, 25, 0).astype(np.float32)
    queries = (10 + rng.standard_normal((90, 16))).astype(np.float32)
    near, ids = second_of(rng.choice([-10, 10], rows.shape), rows, queries, 20)
    assert_exact(queries, rows, 20, near, ids)


@pytest.mark.parametrize("channels", [20, 40])
def test_rows_and_queries_about_as_large_as_numbers_may_be(kernel, channels):
    """Some of both are beyond what few bits say, and have neighbours that are not."""
    rng = np.random.default_rng(0)
    small = rng.choice([-1, 1], (20_000, channels))
    unit = 2.0 ** np.ceil(np.log2(np.sqrt(channels)))

    def about(n):
        edge = 2.0**40 * unit * small[rng.integers(0, 16, n)]
        edge[:, 1:] /= 2
        return (edge * (1 + 0.03 * rng.standard_normal(edge.shape))).astype(np.float32)

    rows, queries = about(20_000), about(200)
    near, ids = second_of(small, rows, queries, 2)
    assert_exact(queries, rows, 2, near, ids)


@pytest.mark.parametrize("k", [1, 7])
def test_squares_that_float32_cannot_hold_lose_no_row(kernel, k):
    rng = np.random.default_rng(0)
    small = rng.standard_normal((512, 16))
    large = (1e20 * small[:1] + 1e17 * rng.standard_normal((512, 16))).astype(np.float32)
    queries = (1e20 * small[:1] + 1e17 * rng.standard_normal((40, 16))).astype(np.float32)
    near, ids = second_of(small, large, queries, k)
    assert_exact(queries, large, k, near, ids)


@pytest.mark.parametrize("k", [1, 7])
def test_a_blank_first_image_says_nothing_of_the_others(kernel, k):
    rng = np.random.default_rng(0)
    large = rng.standard_normal((512, 16)).astype(np.float32)
    queries = rng.standard_normal((40, 16)).astype(np.float32)
    near, ids = second_of(np.zeros((512, 16)), large, queries, k)
    assert_exact(queries, large, k, near, ids)


def test_a_sum_of_products_that_overflows_downwards_loses_no_row(kernel):
    small = np.tile([[1.0, 0], [-1, 0], [0, 1], [0, -1]], (100, 1))
    large = np.linspace(2e19, 1.1e19, 400)[:, None] * np.array([[-1, 1]])
    large[300] = [-1e19, 1e19]
    _, ids = second_of(small, large, np.array([[1e20, 1e20]], np.float32), 1)
    assert ids.tolist() == [[300]]


def test_a_query_in_the_middle_of_rows_far_beyond_the_sample(kernel):
    small = np.repeat([[1.0], [-1]], 2500, 0)
    large = 2 ** np.linspace(46.8, 46.98, 5000, dtype=np.float32)[:, None]
    large[1] = 2.0**44
    queries = np.zeros((1, 1), np.float32)
    near, ids = second_of(small, large, queries, 1)
    assert_exact(queries, large, 1, near, ids)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("channels", [4096, 32768])
@pytest.mark.parametrize("value", [0.1, 0.01, 1 / 3])
def test_distances_of_many_equal_differences(kernel, dtype, channels, value):
    """Each sum of float32 is rounded as the one before, and so errors add up."""
    rows = (np.arange(1, 41)[:, None] * np.full((1, channels), value)).astype(dtype)
    queries = np.zeros((2, channels), np.float32)
    for way in WAYS:
        assert_exact(queries, rows, 2, *search_directly(runnable()[kernel], queries, rows, 2, way))
    near, ids = LevelSearch(rows, 40).search(torch.from_numpy(queries)[None], FIRST, 2, "screened")
    assert_exact(queries, rows, 2, near[0].numpy(), ids[0].numpy())


def test_images_go_while_others_search_them(kernel, monkeypatch):
    """Each search keeps what it needs, however little is kept for the next one."""
    monkeypatch.setattr(gallery, "KEEP", 1)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((8 * 400, 24)).astype(np.float32)
    queries = rng.standard_normal((1, 150, 24)).astype(np.float32)
    level = LevelSearch(rows, 400)
    wrong = []

    def search(first):
        for i in range(20):
            image = (first + i) % 8
            near, _ = level.search(
                torch.from_numpy(queries), torch.tensor([[image, (image + 3) % 8]]), 2, "screened"
            )
            some = rows.reshape(8, 400, 24)[[image, (image + 3) % 8]].reshape(-1, 24)
            expected = brute_force(queries[0], some, 2)[0]
            if not np.allclose(near[0], expected, rtol=1e-5):
                wrong.append(image)

    threads = [threading.Thread(target=search, args=(2 * i,)) for i in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong


@pytest.mark.parametrize("k", [1, 5])
def test_rows_and_queries_of_all_sizes_that_share_their_scales(kernel, k):
    """More of them than are sorted at a time; some are zeros, and some copies of others."""
    rng = np.random.default_rng(0)

    def some(n, channels):
        sizes = 10.0 ** rng.uniform(-9, 9, (n, 1))
        sizes[::97] = 0
        made = (sizes * rng.standard_normal((n, channels))).astype(np.float32)
        made[rng.integers(0, n, n // 10)] = made[rng.integers(0, n, n // 10)]
        return made

    for n, channels in (9000, 12), (700, 700):
        rows, queries = some(n, channels), some(300, channels)
        queries[:20] = rows[:20] * np.float32(1 + 1e-6)
        near, ids = second_of(some(n, channels), rows, queries, k)
        assert_exact(queries, rows, k, near, ids)


def test_queries_that_no_integers_can_say_do_not_change_the_others(kernel):
    """They are large where the axes of the sample see nothing, and so among the small ones."""
    rng = np.random.default_rng(0)

    def flat(n):
        return np.pad(rng.standard_normal((n, 24)), ((0, 0), (0, 24)))

    small, rows, queries = flat(512), flat(512), flat(100)
    rows[::50, 40] = 1e25
    queries[::9, :24] *= 1e-3
    queries[::9, 40] = 1e25
    queries = queries.astype(np.float32)
    near, ids = second_of(small, rows, queries, 2)
    assert_exact(queries, rows.astype(np.float32), 2, near, ids)


@pytest.mark.parametrize("n", [1, 5, 13, 15, 16, 17, 31, 33, 48, 49, 63, 64, 65, 97, 130])
def test_any_number_of_queries_of_one_size_and_of_several(kernel, n):
    """Groups that are full, that are not, and that end early; some are beyond what integers say."""
    rng = np.random.default_rng(n)
    rows = rng.standard_normal((900, 20)).astype(np.float32)
    queries = rng.standard_normal((n, 20)).astype(np.float32)
    for sizes in ([1], [1, 1e3], [1e-6, 1, 1e4, 1e18], [0, 1e18]):
        some = queries * rng.choice(sizes, (n, 1)).astype(np.float32)
        near, ids = second_of(rows[::-1], rows, some, 1)
        assert_exact(some, rows, 1, near, ids)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_products_beside_a_row_that_always_passes(kernel, sign):
    """Of as many channels as there may be: sums of 32 bits hold them."""
    channels = 32768
    small = np.tile(np.array([[1], [-1]], np.float32), (8, channels))
    rows = small.copy()
    rows[5, 0], rows[9] = 1e30, 0
    queries = sign * np.ones((3, channels), np.float32)
    queries[1] *= 1e-3
    queries[2, ::2] *= -1
    near, ids = second_of(small, rows, queries, 3)
    assert_exact(queries, rows, 3, near, ids)


def test_images_of_unlike_counts_of_blocks(kernel):
    """One of copies alone, a short last one, and 64 blocks each, of which one always passes."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20 * 1024 - 700, 16)).astype(np.float32)
    rows[:1024] = rows[0]
    rows[1024 :: 16 * 7, 3] = 1e30
    queries = rng.standard_normal((70, 16)).astype(np.float32)
    queries[0] = rows[3000]
    for k in (1, 4):
        near, ids = LevelSearch(rows, 1024).search(
            torch.from_numpy(queries)[None], torch.arange(20)[None], k, "screened"
        )
        assert_exact(queries, rows, k, near[0].numpy(), ids[0].numpy())
