import logging
import time

import pytest
import torch

from spade_faiss.search import LevelSearch, choice, level


@pytest.fixture
def nothing_known(monkeypatch):
    monkeypatch.setattr(choice, "_chosen", {})
    choice.has_fast_products.cache_clear()
    yield
    choice.has_fast_products.cache_clear()


def slower(dtype, pause):
    product = torch.mm

    def multiply(a, b, **more):
        if a.dtype == dtype:
            time.sleep(pause)
        return product(a, b, **more)

    return multiply


@pytest.mark.parametrize("slow, fast", [(torch.bfloat16, False), (torch.float32, True)])
def test_a_product_that_is_emulated_is_found_out(nothing_known, monkeypatch, slow, fast):
    monkeypatch.setattr(torch, "mm", slower(slow, 0.2))
    assert choice.has_fast_products(torch.bfloat16) is fast


@pytest.mark.parametrize(
    "channels, slow, tried",
    [
        (120, [], ["bfloat16"]),
        (120, [torch.bfloat16], ["float32"]),
        (128, [torch.bfloat16], ["int8"]),
        (128, [torch.int8], ["bfloat16"]),
        (128, [], ["int8", "bfloat16"]),
        (128, [torch.bfloat16, torch.int8], ["float32"]),
    ],
)
def test_precisions_that_are_slow_are_not_tried(nothing_known, monkeypatch, channels, slow, tried):
    monkeypatch.setattr(level, "has_fast_products", lambda dtype: dtype not in slow)
    assert level._precisions(channels) == [f"screened in {name}" for name in tried]


@pytest.mark.parametrize("engine", ["auto", "screened"])
def test_where_bfloat16_is_emulated_nothing_is_screened_in_it(
    nothing_known, monkeypatch, caplog, engine
):
    """However fast a part of one search may seem."""
    monkeypatch.setattr(torch, "mm", slower(torch.bfloat16, 0.2))
    tried = []
    run = LevelSearch._run
    monkeypatch.setattr(
        LevelSearch, "_run", lambda self, name, *more: tried.append(name) or run(self, name, *more)
    )
    patches = torch.randn(40 * 300, 40, generator=torch.Generator().manual_seed(0))
    with caplog.at_level(logging.DEBUG, "spade_faiss"):
        LevelSearch(patches, 300).search(patches[None, :300] + 1, torch.arange(40)[None], 1, engine)
    assert "screened in float32" in tried and "screened in bfloat16" not in tried
    assert "in torch.bfloat16" in caplog.text


def test_the_fastest_is_found_and_remembered(nothing_known):
    costs, seen = {"a": 3.0, "b": 2.0, "c": 1.0}, []

    def cost(name):
        seen.append(name)
        return costs[name]

    of = choice.kind(100, 1000, 8, 1)
    assert choice.fastest(of, "abc", [cost]) == "c"
    assert choice.known(of) == "c" and choice.known(choice.kind(100, 1000, 9, 1)) is None
    assert seen.count("a") == 1  # far behind, it was dropped


def test_all_are_tried_however_far_the_first_is_ahead_of_the_second(nothing_known):
    """Of two screens either may be the faster, and both far ahead of FAISS."""
    costs = {"a": 1.0, "b": 9.0, "c": 0.5}
    assert choice.fastest(("of",) * 4, "abc", [costs.__getitem__]) == "c"


def test_short_searches_are_measured_until_chance_is_out(nothing_known):
    """The better one is slow at first: its threads found no CPU."""
    costs = {"a": iter([0.004] * 99), "b": iter([0.009, 0.006, 0.005, *[0.002] * 96])}
    assert choice.fastest(("of",) * 4, "ab", [lambda name: next(costs[name])]) == "b"


def test_what_is_close_is_measured_with_more_work(nothing_known):
    """A small part of a search is mostly what it takes to begin."""
    few, all_of_it = {"a": 0.08, "b": 0.07, "c": 0.9}, {"a": 0.2, "b": 0.3}
    costs = [few.__getitem__, all_of_it.__getitem__]
    assert choice.fastest(("of",) * 4, "abc", costs) == "a"
    assert choice.fastest(("other",) * 4, "bc", costs) == "b"  # no more is asked
