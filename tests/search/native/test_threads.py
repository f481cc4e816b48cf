"""Calls that threads do side by side."""

import os
import signal
import threading
import time
from ctypes import CFUNCTYPE, POINTER, c_int, c_int32, c_void_p, cast

import pytest
import torch

from spade_faiss.search.native import jobs, runnable
from spade_faiss.search.native.library import DONE, NO_MEMORY, NOT_FINITE, STOPPED, library

pytestmark = pytest.mark.skipif(not runnable(), reason="needs the compiled kernels")
BRIEF = pytest.mark.parametrize("brief", [True, False])


@pytest.fixture
def use():
    """A function that sets how many threads torch has, for the length of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def side_by_side(work, count, *, brief, stop=None):
    """Call `work` with each of so many numbers, and return the job's status."""
    numbers = (c_int32 * count)(*range(count))
    function = CFUNCTYPE(c_int, POINTER(c_int32))(lambda number: work(number[0]))
    address = cast(function, c_void_p).value
    return jobs.side_by_side(
        address, numbers, c_int32(0) if stop is None else stop, (), brief=brief
    )


def affinity():
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


@BRIEF
def test_threads_work_together_and_share_out_the_cpus(use, brief):
    use(3)
    before, together, found = affinity(), threading.Barrier(3), []

    def work(_):
        together.wait(60)  # so that each thread gets one
        found.append((threading.get_ident(), affinity()))
        return DONE

    assert side_by_side(work, 3, brief=brief) == DONE
    assert len({thread for thread, _ in found}) == 3
    assert affinity() == before
    others = [cpus for thread, cpus in found if thread != threading.get_ident()]
    assert len(others) == (2 if brief else 3)
    if before is not None:
        assert all(cpus <= before for cpus in others)
        if not brief:
            assert frozenset().union(*others) == before
            assert len(before) < 3 or sum(map(len, others)) == len(before)


@BRIEF
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_call_is_made_once(use, brief, threads):
    use(threads)
    for count in 1, 2, 3, 64:
        made = []
        assert side_by_side(lambda i, made=made: made.append(i) or DONE, count, brief=brief) == DONE
        assert sorted(made) == list(range(count))


@BRIEF
def test_what_fails_is_told_and_the_others_are_made(use, brief):
    use(2)
    for failed in NOT_FINITE, NO_MEMORY:
        made = []

        def work(i, failed=failed, made=made):
            made.append(i)
            return failed if i == 3 else DONE

        assert side_by_side(work, 8, brief=brief) == failed
        assert len(made) == 8


def test_calls_that_have_not_begun_when_a_job_is_stopped_are_not_made(use):
    use(1)
    stop, made = c_int32(0), []

    def work(i):
        made.append(i)
        stop.value = i == 2
        return DONE

    assert side_by_side(work, 8, brief=True, stop=stop) == STOPPED
    assert made == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 2])
def test_a_wait_that_is_interrupted_before_it_begins_makes_no_calls(monkeypatch, count):
    real, made, kept = library(), [], dict(jobs._under_way)

    class Interrupted:
        def spade_run(self, job, patience):
            if patience >= 0:
                raise KeyboardInterrupt
            return real.spade_run(job, patience)

    monkeypatch.setattr(jobs, "library", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        side_by_side(lambda i: made.append(i) or DONE, count, brief=False)
    assert made == []
    assert jobs._under_way == kept


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupted_wait_stops_the_calls_and_goes_on_once_they_have_ended(use, times):
    """However often it is interrupted: they still use memory."""
    use(2)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    begun, stop, ended = threading.Event(), c_int32(0), []

    def work(i):
        begun.set()
        end = time.monotonic() + 60
        while not stop.value:
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.5)
        ended.append(i)
        return STOPPED

    def interrupt():
        begun.wait(60)
        for _ in range(times):
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)

    impatient = threading.Thread(target=interrupt)
    impatient.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            side_by_side(work, 2, brief=False, stop=stop)
        assert sorted(ended) == [0, 1]
    finally:
        impatient.join()
        signal.signal(signal.SIGINT, before)


def test_calls_may_make_others(use):
    use(2)
    made = []

    def work(i):
        return side_by_side(lambda j: made.append((i, j)) or DONE, 3, brief=True)

    assert side_by_side(work, 4, brief=False) == DONE
    assert sorted(made) == [(i, j) for i in range(4) for j in range(3)]


def test_a_job_is_done_however_many_others_are_at_work(use):
    use(2)
    busy, over = threading.Barrier(3), threading.Event()

    def others(i):
        if i == 0:
            busy.wait(60)
        over.wait(60)
        return DONE

    threads = [
        threading.Thread(target=side_by_side, args=(others, 2), kwargs={"brief": True})
        for _ in range(2)
    ]
    in_the_end = threading.Timer(30, over.set)
    for one in (*threads, in_the_end):
        one.start()
    busy.wait(60)
    try:
        assert side_by_side(lambda _: DONE, 5, brief=False) == DONE
        assert not over.is_set()
    finally:
        over.set()
        in_the_end.cancel()
        for one in threads:
            one.join()


def test_a_thread_that_is_at_work_for_another_job_is_not_waited_for(use):
    """Those at work differ with the CPU that wakes them, so this is tried again and again."""
    use(4)
    assert side_by_side(lambda _: time.sleep(0.05) or DONE, 4, brief=False) == DONE
    for _ in range(12):
        use(3)
        over, busy = threading.Event(), threading.Barrier(4)

        def others(i, over=over, busy=busy):
            busy.wait(60)
            over.wait(60)
            return DONE

        other = threading.Thread(target=side_by_side, args=(others, 3), kwargs={"brief": True})
        in_the_end = threading.Timer(30, over.set)
        other.start()
        busy.wait(60)
        in_the_end.start()
        try:
            use(1)
            assert side_by_side(lambda _: DONE, 2, brief=False) == DONE
            assert not over.is_set()
        finally:
            over.set()
            in_the_end.cancel()
            other.join()
