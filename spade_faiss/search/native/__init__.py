"""Exact search on the CPU by compiled kernels, where they were built: `kernel.h` says how."""

from .gallery import NativeGallery
from .library import MOST_CHANNELS, WAYS, kernels, runnable
from .once import is_short, search_directly

__all__ = [
    "MOST_CHANNELS",
    "WAYS",
    "NativeGallery",
    "is_short",
    "kernels",
    "runnable",
    "search_directly",
]
