"""A search by one product: what it settles, and what it leaves to others."""

import pytest
import torch

from spade_faiss.search import LevelSearch, choice, level, nearest
from spade_faiss.search.product import by_product
from tests.search.oracle import assert_exact


def both(q, g, channels):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(n, channels, generator=generator) for n in (q, g))


@pytest.mark.parametrize(
    "q, g, channels, k",
    [(1, 1, 1, 1), (80, 300, 24, 1), (80, 300, 24, 300), (500, 4000, 24, 3), (70, 2500, 300, 1)],
)
def test_distances_that_differ_settle_a_search(q, g, channels, k):
    queries, gallery = both(q, g, channels)
    distances, ids = by_product(queries, gallery, k)
    assert_exact(queries.numpy(), gallery.numpy(), k, distances.numpy(), ids.numpy())


def test_near_ties_are_told_apart_by_differences():
    queries, gallery = both(100, 400, 48)
    gallery[::2] = gallery[1::2] * (1 + 1e-7)
    queries = gallery[torch.arange(100) * 4 + 1] + 1e-3 * queries
    distances, ids = by_product(queries, gallery, 1)
    assert_exact(queries.numpy(), gallery.numpy(), 1, distances.numpy(), ids.numpy())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows.mul_(1e-3).add_(1e4),
        lambda rows: rows.mul_(1e19),
    ],
    ids=["far from zero", "large"],
)
def test_what_a_product_cannot_settle_is_left(spoil):
    queries, gallery = both(100, 400, 48)
    spoil(queries)
    spoil(gallery)
    assert by_product(queries, gallery, 1) is None


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_left(which, value):
    rows = [*both(100, 400, 48)]
    rows[which][-1, -1] = value
    assert by_product(*rows, 1) is None  # type: ignore[call-arg]


@pytest.mark.parametrize("held, tried", [(200 * 4000, True), (200 * 4000 - 1, False)])
def test_it_is_tried_where_all_scores_may_be_held(held, tried, monkeypatch):
    monkeypatch.setattr(level, "HELD", held)
    asked = []
    monkeypatch.setattr(
        level, "fastest", lambda of, names, costs: asked.append("product" in names) or "faiss"
    )
    queries, patches = both(200, 4000, 128)
    LevelSearch(patches, 100).search(queries[None], torch.arange(40)[None])
    assert asked == [tried]


def test_a_small_search_is_not_measured(monkeypatch):
    monkeypatch.setattr(level, "fastest", None)
    queries, gallery = both(100, 400, 48)
    distances, ids = LevelSearch(gallery, 100).search(queries[None], torch.arange(4)[None], 2)
    assert_exact(queries.numpy(), gallery.numpy(), 2, distances[0].numpy(), ids[0].numpy())


@pytest.fixture
def less_precise():
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.filterwarnings("ignore:torch rounds products")
def test_a_search_is_exact_where_less_precise_products_are_allowed(less_precise):
    """Processors with AMX then round float32 to bfloat16, others do not."""
    queries, gallery = both(300, 4000, 144)
    found = nearest(queries.numpy(), gallery.numpy(), 2)
    assert_exact(queries.numpy(), gallery.numpy(), 2, *found)


@pytest.fixture
def nothing_known():
    choice._keeps_float32.cache_clear()
    yield
    choice._keeps_float32.cache_clear()


def test_where_products_are_rounded_faiss_searches(monkeypatch, nothing_known):
    mm, addmm = torch.mm, torch.addmm

    def rounded(*values):
        return (one.bfloat16().float() for one in values)

    monkeypatch.setattr(torch, "mm", lambda a, b, **more: mm(*rounded(a, b), **more))
    monkeypatch.setattr(torch, "addmm", lambda x, a, b, **more: addmm(x, *rounded(a, b), **more))
    queries, gallery = both(300, 4000, 144)
    with pytest.warns(RuntimeWarning, match=r"set_float32_matmul_precision\('highest'\)"):
        found = nearest(queries.numpy(), gallery.numpy(), 2)
    assert_exact(queries.numpy(), gallery.numpy(), 2, *found)
    with pytest.raises(ValueError, match=r"call torch\.set_float32_matmul_precision"):
        nearest(queries, gallery, 2, "screened")
