"""The command line: `spade-faiss`."""

from .app import app, main

__all__ = ["app", "main"]
