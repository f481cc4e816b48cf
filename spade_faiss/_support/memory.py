"""How much memory there is, and how much of it this process holds.

What counts is anonymous memory. Pages of files that are mapped, as an index's are, are no burden:
the system drops them and reads them again as it needs to.
"""

from __future__ import annotations

import ctypes
import gc
import re
from contextlib import suppress
from pathlib import Path

from ..errors import SpadeError

try:
    import resource
except ImportError:  # as on Windows
    resource = None  # type: ignore[assignment]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?\s*", re.IGNORECASE)
_STATUS = Path("/proc/self/status")
_CGROUPS = Path("/sys/fs/cgroup")
_MOST = 1 << 62
"""Bytes that the system's calls can name."""


def parse_size(text: str) -> int:
    """Return the bytes that a size stands for: "2GiB", "800 MB" (2^20 bytes each), "1.5g".

    Raises
    ------
    SpadeError
        If it is none, or no machine has so much.
    """
    found = _SIZE.fullmatch(text)
    if not found:
        raise SpadeError(f"{text!r} is no size: write 2GiB, 800MiB or a number of bytes")
    size = float(found[1]) * _UNITS[found[2].upper()]
    if size > _MOST:
        raise SpadeError(f"{text!r} is no size that a machine has: write 2GiB, 800MiB or so")
    return int(size)


def human(size: float) -> str:
    """Return a size in words, 1.5 GiB."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def anonymous() -> int:
    """Return the bytes of anonymous memory that this process holds (Linux; elsewhere 0)."""
    return _status("RssAnon")


def set_aside() -> int:
    """Return the bytes that this process has set aside, used or not (Linux; elsewhere 0)."""
    return _status("VmData")


def available() -> int:
    """Return the bytes that may still be had: of the machine, and under this process's limits."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text("latin-1"))
    except OSError:
        found = None
    room = int(found[1]) * 1024 if found else 1 << 62
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            room = min(room, int((_CGROUPS / name).read_text("latin-1")) - anonymous())
        except (OSError, ValueError):
            continue
    return max(min(room, may_be_set_aside()), 0)


def may_be_set_aside() -> int:
    """Return the bytes that this process's limits let it set aside, used or not."""
    room = 1 << 62
    if resource is None:
        return room
    for of, name in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        limit = resource.getrlimit(of)[0]
        if limit != resource.RLIM_INFINITY:
            room = min(room, limit - _status(name))
    return room


def give_back() -> None:
    """Give the system back what nobody refers to any more, as far as its C library can."""
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):  # it is not glibc's
        ctypes.CDLL(None).malloc_trim(0)


def is_shortage(error: BaseException) -> bool:
    """Say whether an error means that memory ran out, in the words of the libraries used here."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(
        words in text
        for words in (
            "out of memory",
            "can't allocate memory",
            "bad_alloc",
            "insufficient memory",
            "could not create a memory",
            "cannot allocate memory",
            "failed to allocate",
            "alloc_failed",
        )
    )


def _status(name: str) -> int:
    try:
        found = re.search(rf"{name}:\s+(\d+)", _STATUS.read_text("latin-1"))
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else 0
