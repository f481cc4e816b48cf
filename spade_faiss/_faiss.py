"""The one place that imports FAISS, so that its absence is explained once."""

from __future__ import annotations

import re
from functools import cache
from types import ModuleType

from .errors import SpadeError


@cache
def faiss() -> ModuleType:
    """Return the faiss module, from faiss-cpu or faiss-gpu.

    Raises
    ------
    SpadeError
        If neither is installed.
    """
    try:
        import faiss as module
    except ModuleNotFoundError:
        raise SpadeError(
            "FAISS is not installed: pip install 'spade-faiss[cpu]', "
            "or 'spade-faiss[gpu]' for CUDA on Linux"
        ) from None
    assert isinstance(module, ModuleType)
    return module


def faiss_reason(error: object) -> str:
    """Return what FAISS complains of, without the place in its source that it puts before it."""
    text = str(error).strip()
    found = re.match(r"Error in .*? at \S+:\d+: (?:Error: '(.*?)' failed(?:: )?)?(.*)", text, re.S)
    if found:
        text = found[2].strip() or f"{found[1]} does not hold"
    return " ".join(text.split())
