"""Calls of the kernels, side by side: see `threads.cpp`."""

from __future__ import annotations

import threading
from ctypes import Array, Structure, addressof, byref, c_int32, sizeof

import torch

from .library import Job, library

_PATIENCE = 50
"""Milliseconds after which the main thread looks for what interrupts it, as Ctrl-C does."""
_ENDLESS = -1
_under_way: dict[int, tuple[object, ...]] = {}
"""What jobs use that the main thread waits for: interrupted again, it might let go of it."""


def run(
    function: int, calls: Array[Structure], stop: c_int32, held: tuple[object, ...], *, brief: bool
) -> int:
    """Make calls by as many threads as torch has, and return the first status but DONE.

    Parameters
    ----------
    function : int
        The address of one of the kernels' functions.
    calls : array of what it takes
    stop : c_int32
        Becomes 1 once they are to end: whatever interrupts the wait, as Ctrl-C does, sees to that,
        and goes on when they have ended.
    held : tuple
        Has the memory that they use.
    brief : bool
        Whether they take too little time for anybody to interrupt them.
    """
    found = library()
    threads = torch.get_num_threads()
    size = sizeof(calls) // len(calls)
    job = Job(function, addressof(calls), size, len(calls), addressof(stop), threads)
    if brief or threading.current_thread() is not threading.main_thread():
        found.spade_run(byref(job), _ENDLESS)
        return int(job.status)
    _under_way[id(job)] = job, calls, stop, held
    try:
        while not found.spade_run(byref(job), _PATIENCE):
            pass
    finally:
        try:
            stop.value = 1
            found.spade_run(byref(job), _ENDLESS)
        finally:
            if job.ended == job.count:
                del _under_way[id(job)]
    return int(job.status)
