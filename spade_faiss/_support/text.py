"""Text that can be shown anywhere."""

from __future__ import annotations

from urllib.parse import SplitResult


def printable(name: str) -> str:
    """Return a path in one line of valid text, whatever bytes a file's name holds."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def host_of(parts: SplitResult) -> str:
    """Return the host of an address, and its port if it names one: neither name nor password."""
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{parts.port}" if parts.port else host
