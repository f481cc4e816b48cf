"""Which verdicts another program is told of, and what each is known by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ..errors import SpadeError

WHICH: Mapping[str, frozenset[str] | None] = {
    "all": None,
    "ng": frozenset({"NG"}),
    "not-ok": frozenset({"NG", "REVIEW", "ERROR"}),
}
"""By name, the verdicts that are told; None for all."""


def wanted(which: str, verdict: str) -> bool:
    """Say whether a verdict is to be told.

    Raises
    ------
    SpadeError
        If there is no such choice.
    """
    if which not in WHICH:
        raise SpadeError(f"`notify_on={which}`: give {', '.join(WHICH)}")
    verdicts = WHICH[which]
    return verdicts is None or verdict in verdicts


def identity(*parts: object) -> str:
    """Return what a message is known by: the same for the same parts, in every process."""
    text = "\0".join(map(str, parts))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
