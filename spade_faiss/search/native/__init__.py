"""Exact search on the CPU by compiled kernels, where they were built: `kernel.h` says how."""

from .gallery import NativeGallery, search_directly
from .library import kernels, runnable

__all__ = ["NativeGallery", "kernels", "runnable", "search_directly"]
