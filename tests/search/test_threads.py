import os
import threading

import pytest
import torch

from spade_faiss.search.threads import side_by_side


@pytest.fixture
def use():
    """A function that sets how many threads torch has, for the length of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def three(use):
    use(3)


def where(together):
    together.wait(60)  # so that each thread gets one
    return threading.current_thread().name, torch.get_num_threads(), affinity()


def affinity():
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def test_threads_share_out_the_cpus_and_leave_the_callers_alone(three):
    before = affinity()
    found = side_by_side(where, 3 * [threading.Barrier(3)])
    assert len({name for name, _, _ in found}) == 3
    assert [count for _, count, _ in found] == [1, 1, 1]
    assert (torch.get_num_threads(), affinity()) == (3, before)
    if before is not None:
        shares = [cpus for _, _, cpus in found]
        assert frozenset().union(*shares) == before
        if len(before) >= 3:
            assert sum(map(len, shares)) == len(before)


def test_where_threads_may_not_choose_their_cpus_they_work_all_the_same(use, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    use(7)  # as no other test does, so that these threads begin here
    assert side_by_side(abs, [-1, 2, -3]) == [1, 2, 3]


def test_what_is_raised_in_a_thread_is_raised_here(three):
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda n: 1 // n, [1, 0, 2])


def test_what_interrupts_the_wait_stops_the_work(three):
    """Other threads wait for the interrupted one to say so, as a search does that looks at it."""
    told, ended = threading.Event(), []

    def work(number):
        if number == 0:
            raise KeyboardInterrupt
        ended.append(told.wait(60))

    with pytest.raises(KeyboardInterrupt):
        side_by_side(work, range(3), told.set)
    assert all(ended)


def test_threads_may_share_out_work_of_their_own(three):
    assert side_by_side(lambda n: side_by_side(abs, [n, -n]), [1, 2, 3, 4]) == [
        [1, 1],
        [2, 2],
        [3, 3],
        [4, 4],
    ]
