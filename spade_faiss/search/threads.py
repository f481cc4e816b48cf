"""Threads that search side by side: each has torch's inner loops to itself, and CPUs of its own.

Linux wakes a thread where the one that wakes it runs, and if there are few CPUs it may take three
milliseconds to find that another is idle: as long as a small search takes. And GNU's OpenMP lets
its threads wait busily for up to eight after each operation, unless it has more of them than there
are CPUs. So no search waits for torch's threads, each of these has its own share of the CPUs, and
each has once had OpenMP threads of its own, which sleep but are counted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache
from threading import Barrier
from typing import Any, TypeVar

import torch

from .._support.faiss import faiss

Made = TypeVar("Made")

_MANY = 1 << 18
"""Values of which torch does an operation by several threads."""


def side_by_side(
    work: Callable[[Any], Made], items: Sequence[Any], stop: Callable[[], object] = int
) -> list[Made]:
    """Return what `work` makes of each item: `map` by as many threads as torch has.

    Whatever interrupts the wait, as Ctrl-C does, calls `stop`, and goes on once no work is left.
    """
    threads = torch.get_num_threads()
    if threads == 1 and threading.current_thread() is not threading.main_thread():
        return [work(item) for item in items]  # nothing interrupts it
    started: list[Future[Made]] = []
    try:
        for item in items:
            started.append(_pool(threads).submit(work, item))
        return [one.result() for one in started]
    except BaseException:
        stop()
        for one in started:
            one.cancel()
        wait(started)
        raise


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    faiss()  # what it raises is raised here
    torch.set_num_threads(threads)  # after a fork torch mends its threads: only one may ask it to
    start = Barrier(threads)
    places = iter(range(threads))

    def alone() -> None:
        if hasattr(os, "sched_setaffinity"):
            cpus = sorted(os.sched_getaffinity(0))
            place = next(places)
            with suppress(OSError):  # where it is forbidden, all goes on, more slowly
                os.sched_setaffinity(0, cpus[place::threads] or {cpus[place % len(cpus)]})
        torch.ones(_MANY)  # for torch to start the threads that are to be counted
        torch.set_num_threads(1)
        faiss().omp_set_num_threads(1)
        start.wait()

    pool = ThreadPoolExecutor(threads, "spade-faiss-search", alone)
    for _ in range(threads):
        pool.submit(int)
    pool.submit(int).result()
    torch.set_num_threads(threads)  # what those threads set became the default of new ones
    return pool


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_pool.cache_clear)
