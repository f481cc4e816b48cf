"""The compiled kernels, and the structures by which they are called: see `kernel.h`."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterator
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import SpadeError

logger = logging.getLogger("spade_faiss")

CHOICE = "SPADE_FAISS_KERNEL"
"""Names the kernel to use, or is "none"; without it the fastest is used."""
LIBRARY = "SPADE_FAISS_KERNEL_LIBRARY"
"""Names the library to load; without it that beside this file is."""
VERSION = 3
"""Of the structures below and what they mean, as `kernel.h` has it."""
ROWS = 16
"""Rows of a packed block."""
TERMS = 2 * ROWS * 4
"""Bytes that a block has besides integers."""
DONE, NOT_FINITE, STOPPED, NO_MEMORY = range(4)


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
    """A search of rows that lie together, by differences."""

    _fields_ = (
        ("gallery", Rows),
        ("queries", c_void_p),
        ("count", c_int64),
        ("channels", c_int64),
        ("k", c_int64),
        ("first", c_int64),
        ("distances", c_void_p),
        ("ids", c_void_p),
        ("stop", c_void_p),
    )


class Kernels(Structure):
    """An instruction set's functions; each returns one of the states above."""


Kernels._fields_ = (
    ("name", c_char_p),
    ("multiple", c_int32),
    ("most", c_int32),
    ("narrow", POINTER(Kernels)),
    ("pack", ctypes.CFUNCTYPE(c_int, POINTER(Map), POINTER(Rows), POINTER(Packed))),
    ("search", ctypes.CFUNCTYPE(c_int, POINTER(Search))),
    ("direct", ctypes.CFUNCTYPE(c_int, POINTER(Direct))),
)


@cache
def _library() -> Any:
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
        library = ctypes.CDLL(str(path))
        if library.spade_kernels_version() != VERSION:
            raise OSError(f"{path} belongs to another version of spade-faiss")
    except (OSError, AttributeError) as error:
        if named:
            raise SpadeError(f"{LIBRARY}: {error}") from None
        logger.warning("search: by FAISS, since %s: install spade-faiss again", error)
        return None
    library.spade_kernels.restype = POINTER(Kernels)
    return library


def _all() -> Iterator[Kernels]:
    library = _library()
    for number in range(4 if library else 0):
        found = library.spade_kernels(number)
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
    if name == "none":
        return None
    if not name:
        return next(iter(here.values()), None)
    if name not in here:
        names = ", ".join([*here, "none"])
        raise SpadeError(f"{CHOICE}={name} does not run here: choose one of {names}")
    return here[name]
