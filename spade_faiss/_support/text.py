"""Text that can be shown anywhere."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import SplitResult


def valid(text: str) -> str:
    r"""Return text with the bytes of a file's name that are no UTF-8 written out.

    Python keeps them as lone surrogates, which no other program takes.

    >>> print(valid("caf\udce9.png"))
    caf\udce9.png
    """
    return text.encode("utf-8", "backslashreplace").decode()


def printable(name: str) -> str:
    """Return a path in one line of valid text, whatever bytes a file's name holds."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in valid(name)
    )


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return JSON for other programs: all text in it is `valid`."""
    return json.dumps(_valid_in(value), indent=indent)


def _valid_in(value: Any) -> Any:
    if isinstance(value, str):
        return valid(value)
    if isinstance(value, dict):
        return {_valid_in(key): _valid_in(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_valid_in(one) for one in value]
    return value


def host_of(parts: SplitResult) -> str:
    """Return the host of an address, and its port if it names one: neither name nor password."""
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{parts.port}" if parts.port else host
