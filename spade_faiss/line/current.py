"""The index that a line is judged by, and what takes its place when its folder changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..detector import Detector
from ..detector.correspond import units_compared
from ..features import Backbone
from ..index.folders import Stamp, stamp_of

Opener = Callable[[Sequence[Backbone]], Detector]
"""Opens what the folder holds, given the networks that are loaded already."""


class CurrentIndex:
    """An index or ensemble that is opened anew when another took its place.

    One that cannot be opened leaves the one before in use, and is tried again.

    Parameters
    ----------
    folder : Path
    opener : callable
    say : callable
        Is given a line when another index is in use, and when it cannot be opened.

    Raises
    ------
    SpadeError
        If it cannot be opened now.
    """

    RETRY = 30.0
    """Seconds after which an index that could not be opened is tried again."""

    def __init__(self, folder: Path, opener: Opener, say: Callable[[str], object]) -> None:
        self._folder, self._opener, self._say = folder, opener, say
        self._refused: Stamp | None = None
        self._again = 0.0
        self._open(())

    def take(self) -> Detector:
        """Return the detector of what the folder holds now, if it can be opened."""
        stamp = stamp_of(self._folder)
        if stamp != self._stamp and (stamp != self._refused or time.monotonic() >= self._again):
            try:
                self._open([one.network for one in self.detector.members])
                self._refused = None
                self._say(
                    f"{self._folder} was replaced; generation "
                    f"{self.detector.manifest.generation} is in use now"
                )
            except Exception as error:  # whatever it is, the line goes on
                if stamp != self._refused:
                    self._say(
                        f"{self._folder} was replaced by what cannot be opened; the index before "
                        f"stays in use: {error}"
                    )
                self._refused, self._again = stamp, time.monotonic() + self.RETRY
        return self.detector

    def _open(self, networks: Sequence[Backbone]) -> None:
        while True:
            stamp = stamp_of(self._folder)
            detector = self._opener(networks)
            for one in detector.members:  # what else the first image would show to be wrong
                _ = one.pipeline.network
                units_compared(one.index_, one.settings)
            if stamp_of(self._folder) == stamp:  # else a writer came between
                break
        self.detector, self._stamp = detector, stamp
