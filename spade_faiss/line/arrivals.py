"""Which files of a folder are complete, by what one look after another finds of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .scan import Look, State


@dataclass
class _Waiting:
    """A file that is not judged: what it looks like, since when, and when it is to be read.

    `first` is when it was seen first, whatever it looked like.
    """

    state: State
    since: float
    due: float
    first: float


class Arrivals:
    """Follows the files of a folder until they are complete.

    A file is complete once it has looked the same for `settle` seconds, and can be decoded. One
    that cannot be is given up once it has looked the same for `patience` seconds. Times are those
    of this machine's clock that never goes back: what a network folder's own says does not count.

    Parameters
    ----------
    settle, patience : float
        Seconds.
    is_judged : callable
        Says of a path and a state whether that was judged already.
    """

    def __init__(
        self, settle: float, patience: float, is_judged: Callable[[str, State], bool]
    ) -> None:
        self._settle, self._patience = settle, max(settle, patience)
        self._is_judged = is_judged
        self._waiting: dict[str, _Waiting] = {}
        self._judged: dict[str, State] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def see(self, found: Look, now: float) -> list[str]:
        """Take what a look found; return the paths of the files to read, oldest first.

        Parameters
        ----------
        found : Look
        now : float
            Seconds, by a clock that never goes back.
        """
        for known in (self._waiting, self._judged):
            for path in [one for one in known if one not in found.files]:
                if not found.may_hold(path):
                    del known[path]
        for path, state in found.files.items():
            if self._judged.get(path) == state:
                continue
            waiting = self._waiting.get(path)
            if waiting is None and self._is_judged(path, state):
                self._judged[path] = state
            elif waiting is None or waiting.state != state:
                self.changed(path, state, now)
        ready = [
            path for path, one in self._waiting.items() if path in found.files and now >= one.due
        ]
        return sorted(ready, key=lambda path: (found.files[path].changed, path))

    def state(self, path: str) -> State:
        """Return what a file that waits looks like."""
        return self._waiting[path].state

    def changed(self, path: str, state: State, now: float) -> None:
        """Take note that a file is new, or changed."""
        before = self._waiting.get(path)
        first = before.first if before else now
        self._waiting[path] = _Waiting(state, now, now + self._settle, first)

    def restless(self, now: float) -> str | None:
        """Return a file that has been changing for so long as others are waited for, if any."""
        for path, one in self._waiting.items():
            if one.since > one.first + self._patience and now < one.since + self._settle:
                return path
        return None

    def cannot_be_read(self, path: str, now: float, *, soon: bool) -> bool:
        """Take note of a file that cannot be read; return whether to give it up.

        Parameters
        ----------
        path : str
        now : float
        soon : bool
            Whether it may be read soon though it stays as it is, as where its writer has locked it.
        """
        one = self._waiting[path]
        end = one.since + self._patience
        one.due = min(end, now + self._settle) if soon else end
        return now >= end

    def later(self, path: str, now: float) -> None:
        """Have a file that was given up be read again, though it looks as it did."""
        one = self._waiting[path]
        one.due, one.first = now + self._patience, now

    def gone(self, path: str) -> None:
        """Take note that a file is no more."""
        del self._waiting[path]

    def judged(self, path: str) -> None:
        """Take note that a file is done with, as long as it looks as it does."""
        self._judged[path] = self._waiting.pop(path).state
