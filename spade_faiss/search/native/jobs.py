"""Calls of the kernels, side by side: see `threads.cpp`."""

from __future__ import annotations

import threading
from ctypes import Array, addressof, byref, c_int32, sizeof
from typing import Any

import torch

from .library import DONE, NO_MEMORY, NOT_FINITE, Job, library

_BRIEF = 1 << 27
"""Operations that nobody interrupts."""
_PATIENCE = 50
"""Milliseconds after which the main thread looks for what interrupts it, as Ctrl-C does."""
_ENDLESS = -1
_under_way: dict[int, tuple[object, ...]] = {}
"""What jobs use that the main thread waits for: interrupted again, it might let go of it."""


def run(
    function: int,
    calls: Array[Any],
    work: int,
    stop: c_int32,
    name: str,
    held: tuple[object, ...],
) -> None:
    """Make calls that do so much work at the least: about a nanosecond each.

    Raises
    ------
    MemoryError
    ValueError
        If values are not finite: those of what `name` says.
    """
    status = side_by_side(function, calls, stop, held, brief=work < _BRIEF)
    if status == NO_MEMORY:
        raise MemoryError("out of memory: a search found no room")
    if status == NOT_FINITE:
        raise ValueError(f"{name} hold NaN or infinite values")
    assert status == DONE


def side_by_side(
    function: int, calls: Array[Any], stop: c_int32, held: tuple[object, ...], *, brief: bool
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
