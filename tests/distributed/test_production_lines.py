"""Many lines: what comes of each, and what ends them all."""

import threading
from types import SimpleNamespace

import pytest

from spade_faiss.distributed.production_lines import each_production_line

TOGETHER = 10
"""Seconds that lines which are under way at once may wait for each other."""


def test_lines_come_in_their_order_and_one_that_fails_stops_no_other():
    failed = {}
    found = each_production_line(
        ["c", "a", "b"], lambda name: 1 // (name != "a"), failed.__setitem__
    )
    assert list(found) == ["c", "b"] and isinstance(failed["a"], ZeroDivisionError)


def test_one_more_line_than_there_are_workers_is_under_way():
    failed, all_there = {}, threading.Barrier(3)

    def work(name):
        if name == "a":
            raise OSError(name)
        all_there.wait(TOGETHER)
        return name.upper()

    workers = SimpleNamespace(size=2, dismiss=lambda: pytest.fail("nobody asked for it"))
    found = each_production_line(["d", "c", "b", "a"], work, failed.__setitem__, workers)
    assert [*found.items()] == [("d", "D"), ("c", "C"), ("b", "B")] and [*failed] == ["a"]


def test_an_interruption_dismisses_the_workers_whose_answers_the_other_lines_wait_for():
    dismissed = threading.Event()

    def work(name):
        if name == "a":
            raise KeyboardInterrupt
        assert dismissed.wait(TOGETHER)

    workers = SimpleNamespace(size=1, dismiss=dismissed.set)
    with pytest.raises(KeyboardInterrupt):
        each_production_line(["a", "b"], work, lambda *_: None, workers)
    assert dismissed.is_set()
