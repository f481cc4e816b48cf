"""Threads that search side by side: each has torch's inner loops to itself, and CPUs of its own.

Linux wakes a thread where the one that wakes it runs, and if there are few CPUs it may take three
milliseconds to find that another is idle: as long as a small search takes. And GNU's OpenMP lets
its threads wait busily for up to eight after each operation, unless it has more of them than there
are CPUs. So no search waits for torch's threads, each of these has its own share of the CPUs, and
each has once had OpenMP threads of its own, which sleep but are counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from threading import Barrier
from typing import Any

import torch
from torch import Tensor

from .._faiss import faiss

_ALONE, _LITTLE = 1 << 15, 1 << 18
"""Values of which torch does an operation by one thread, and that are not worth several."""


def side_by_side(work: Callable[..., Any], *items: Iterable[Any]) -> list[Any]:
    """Return what `work` makes of each item: `map` by as many threads as torch has."""
    threads = torch.get_num_threads()
    if threads == 1:
        return list(map(work, *items))
    return list(_pool(threads).map(work, *items))


def in_parts(work: Callable[..., Any], *values: Tensor) -> list[Any]:
    """Return what `work` makes of parts of tensors' rows: a part a thread, or all on a GPU.

    Little is done right here, in parts for which torch wakes no threads.
    """
    rows = len(values[0])
    if values[0].is_cuda or not rows:
        return [work(*values)]
    size = values[0].numel()
    parts = min(rows, torch.get_num_threads() if size > _LITTLE else -(-size // _ALONE))
    apart = zip(*(torch.tensor_split(one, parts) for one in values), strict=True)
    if size <= _LITTLE:
        return [work(*some) for some in apart]
    return side_by_side(lambda some: work(*some), apart)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    start = Barrier(threads)
    places = iter(range(threads))

    def alone() -> None:
        if hasattr(os, "sched_setaffinity"):
            cpus = sorted(os.sched_getaffinity(0))
            place = next(places)
            with suppress(OSError):  # where it is forbidden, all goes on, more slowly
                os.sched_setaffinity(0, cpus[place::threads] or {cpus[place % len(cpus)]})
        torch.ones(_LITTLE)  # large enough for torch to start the threads that are to be counted
        torch.set_num_threads(1)
        faiss().omp_set_num_threads(1)
        start.wait()

    pool = ThreadPoolExecutor(threads, "spade-faiss-search", alone)
    for _ in range(threads):
        pool.submit(int)
    pool.submit(int).result()
    torch.set_num_threads(threads)  # what those threads set became the default of new ones
    return pool


os.register_at_fork(after_in_child=_pool.cache_clear)
