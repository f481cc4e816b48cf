"""The command line: `spade-faiss`."""

from .app import main

__all__ = ["main"]
