"""The compiled kernels, and the structures by which they are called: see `kernel.h`."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterator
from ctypes import POINTER, Structure, c_char_p, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import SpadeError

logger = logging.getLogger("spade_faiss")

CHOICE = "SPADE_FAISS_KERNEL"
"""Names the kernel to use, or is "none"; without it the fastest is used."""
LIBRARY = "SPADE_FAISS_KERNEL_LIBRARY"
"""Names the library to load; without it that beside this file is."""
VERSION = 4
"""Of the structures below and what they mean, as `kernel.h` has it."""
ROWS = 16
"""Rows of a packed block."""
TERMS = 2 * ROWS * 4
"""Bytes that a block has besides integers."""
MOST_CHANNELS = 1 << 15
"""Up to which sums of products of 8-bit integers fit into 32 bits."""
DONE, NOT_FINITE, STOPPED, NO_MEMORY = range(4)
WAYS = COMPARE, MULTIPLY, PACK = range(3)
"""How rows are searched that are not searched again."""


class Map(Structure):
    """How rows become shorter ones."""

    _fields_ = (
        ("centre", c_void_p),
        ("axes", c_void_p),
        ("unit", c_float),
        ("rest", c_float),
        ("channels", c_int32),
        ("kept", c_int32),
        ("rests", c_int32),
        ("padded", c_int32),
        ("width", c_int32),
        ("unused", c_int32),
    )


class Rows(Structure):
    """A gallery's rows, float32 or float16."""

    _fields_ = (("data", c_void_p), ("rows", c_int64), ("half", c_int32), ("unused", c_int32))


class Packed(Structure):
    """An image's rows as the pass reads them."""

    _fields_ = (
        ("blocks", c_void_p),
        ("copies", c_void_p),
        ("order", c_void_p),
        ("count", c_int64),
        ("first", c_int64),
        ("rows", c_int64),
    )


class Pack(Structure):
    """An image to be packed."""

    _fields_ = (
        ("map", POINTER(Map)),
        ("gallery", POINTER(Rows)),
        ("packed", POINTER(Packed)),
        ("stop", c_void_p),
    )


class Search(Structure):
    """A search for some queries."""

    _fields_ = (
        ("map", POINTER(Map)),
        ("gallery", POINTER(Rows)),
        ("queries", c_void_p),
        ("count", c_int64),
        ("images", POINTER(POINTER(Packed))),
        ("image_count", c_int64),
        ("k", c_int64),
        ("distances", c_void_p),
        ("ids", c_void_p),
        ("stop", c_void_p),
    )


class Direct(Structure):
    """A search of rows that lie together, and are not searched again."""

    _fields_ = (
        ("gallery", Rows),
        ("way", c_int64),
        ("queries", c_void_p),
        ("count", c_int64),
        ("channels", c_int64),
        ("k", c_int64),
        ("first", c_int64),
        ("distances", c_void_p),
        ("ids", c_void_p),
        ("stop", c_void_p),
    )


class Job(Structure):
    """Calls that threads do side by side."""

    _fields_ = (
        ("call", c_void_p),
        ("calls", c_void_p),
        ("size", c_int64),
        ("count", c_int64),
        ("stop", c_void_p),
        ("threads", c_int32),
        ("status", c_int32),
        ("begun", c_int32),
        ("working", c_int32),
        ("next", c_int64),
        ("ended", c_int64),
        ("after", c_void_p),
    )


class Kernels(Structure):
    """An instruction set's functions, by their addresses; each returns one of the states above."""


Kernels._fields_ = (
    ("name", c_char_p),
    ("multiple", c_int32),
    ("most", c_int32),
    ("narrow", POINTER(Kernels)),
    ("pack", c_void_p),
    ("search", c_void_p),
    ("direct", c_void_p),
)


@cache
def library() -> Any:
    """Return the shared library, or None where none was built that fits.

    Raises
    ------
    SpadeError
        If the environment names one that cannot be used.
    """
    named = os.environ.get(LIBRARY)
    path = Path(named).absolute() if named else Path(__file__).with_name("_kernels.so")
    if not named and not path.exists():
        return None
    try:
        found = ctypes.CDLL(str(path))
        if found.spade_kernels_version() != VERSION:
            raise OSError(f"{path} belongs to another version of spade-faiss")
    except (OSError, AttributeError) as error:
        if named:
            raise SpadeError(f"{LIBRARY}: {error}") from None
        logger.warning("search: by FAISS, since %s: install spade-faiss again", error)
        return None
    found.spade_kernels.restype = POINTER(Kernels)
    found.spade_run.argtypes = POINTER(Job), c_int32
    return found


def _all() -> Iterator[Kernels]:
    built = library()
    for number in range(4 if built else 0):
        found = built.spade_kernels(number)
        if found:
            yield found.contents


@cache
def runnable() -> dict[str, Kernels]:
    """Return the kernels that were built and that this processor runs, the fastest first."""
    return {found.name.decode(): found for found in _all()}


def kernels() -> Kernels | None:
    """Return the kernels to use, or None where none were built or none are wanted.

    Raises
    ------
    SpadeError
        If the environment asks for some that do not run here.
    """
    return _chosen(os.environ.get(CHOICE, ""))


@cache
def _chosen(name: str) -> Kernels | None:
    here = runnable()
    if name not in ("", "none", *here):
        names = ", ".join([*here, "none"])
        raise SpadeError(f"{CHOICE}={name} does not run here: choose one of {names}")
    chosen = name or next(iter(here), "none")
    if chosen == "none":
        logger.info("search: by FAISS, for want of compiled kernels")
        return None
    logger.debug("search: by the compiled kernels for %s", chosen)
    return here[chosen]
