"""The one place that imports FAISS, so that its absence is explained once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from ..errors import SpadeError
from .memory import human, may_be_set_aside
from .text import valid

_BLAS = 160 << 20
"""Bytes that its BLAS sets aside, and hardly uses, at the first large product; if refused them,
it crashes."""


@cache
def faiss() -> ModuleType:
    """Return the faiss module, from faiss-cpu or faiss-gpu, with what its BLAS sets aside at hand.

    Raises
    ------
    SpadeError
        If neither is installed.
    MemoryError
        If this process may not have as much memory as FAISS takes to start.
    """
    if may_be_set_aside() < _BLAS:
        raise MemoryError(f"out of memory: FAISS needs {human(_BLAS)} to start")
    try:
        import faiss as module
    except ModuleNotFoundError:
        raise SpadeError(
            "FAISS is not installed: pip install '.[cpu]' in the project's folder, "
            "or '.[gpu]' for CUDA on Linux"
        ) from None
    assert isinstance(module, ModuleType)
    large = np.zeros((64, 4096), np.float32)
    module.knn(large, large, 1)
    return module


def path_for_faiss(path: Path) -> str:
    """Return a path as FAISS takes it.

    Raises
    ------
    SpadeError
        If it is not UTF-8.
    """
    text = str(path)
    if valid(text) != text:
        raise SpadeError(f"{text}: FAISS opens no path that is not UTF-8: name another folder")
    return text


def faiss_reason(error: object) -> str:
    """Return what FAISS complains of, without the place in its source that it puts before it."""
    text = str(error).strip()
    found = re.match(r"Error in .*? at \S+:\d+: (?:Error: '(.*?)' failed(?:: )?)?(.*)", text, re.S)
    if found:
        text = found[2].strip() or f"{found[1]} does not hold"
    return " ".join(text.split())


@contextmanager
def faiss_errors(subject: str) -> Iterator[None]:
    """Turn an error that FAISS raises in a `with` block into one line about a subject.

    Raises
    ------
    SpadeError
        If FAISS raises.
    """
    try:
        yield
    except RuntimeError as error:
        raise SpadeError(f"{subject}: {faiss_reason(error)}") from None
