"""Text that can be shown anywhere."""

from __future__ import annotations


def printable(name: str) -> str:
    """Return a path in one line of valid text, whatever bytes a file's name holds."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
