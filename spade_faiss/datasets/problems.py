"""What is broken in a data set, and what was done about it."""

from __future__ import annotations

from ..errors import SpadeError
from ..images import OnError


class BrokenError(SpadeError):
    """A part of a data set that cannot be used; `where` it is, and `why`."""

    def __init__(self, where: object, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class Problems:
    """Reports what is broken and what was done about it, or raises where nobody listens.

    Attributes
    ----------
    notes : list of str
        What of the data set is not used and no error, a line each.
    """

    def __init__(self, on_error: OnError | None) -> None:
        self._on_error = on_error
        self.notes: list[str] = []

    def __call__(self, where: object, why: str, done: str) -> None:
        """Report that something is broken, as (where, "why; done").

        Raises
        ------
        BrokenError
            If there is nobody to report to.
        """
        if self._on_error is None:
            raise BrokenError(where, why)
        self._on_error(str(where), f"{why}; {done}")

    def left_out(self, name: str, why: str) -> None:
        """Report an image that is left out; raises what a call raises."""
        self(name, why, "left out")
