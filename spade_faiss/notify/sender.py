"""What takes a message to where it is to go, and how that fails."""

from __future__ import annotations

from typing import Protocol


class UnreachableError(Exception):
    """The other side takes no message now: all of them wait."""


class RefusedError(Exception):
    """The other side takes messages, but not this one: the others go on."""


class Sender(Protocol):
    """Takes one message after another to one place; used by one thread."""

    def send(self, identity: str, body: bytes) -> None:
        """Take a message there; return once the other side has it.

        Raises
        ------
        UnreachableError
        RefusedError
        """

    def close(self) -> None:
        """Let go of the connection."""
