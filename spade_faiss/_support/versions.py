"""Which versions of packages are installed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable


def installed(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
