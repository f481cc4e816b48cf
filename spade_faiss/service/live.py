"""The index or ensemble in service, and what takes its place when its folder changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread

import numpy as np

from ..ensemble import Detector, manifest_of, members_of
from ..features import Backbone
from ..index import read_manifest
from ..index.manifest import ENSEMBLE, MANIFEST

logger = logging.getLogger("spade_faiss")

Opener = Callable[[Sequence[Backbone]], Detector]
"""Opens what the folder holds, given the networks that are loaded already."""
_Stamp = tuple[tuple[int, int, int] | None, ...]


class LiveIndex:
    """An index or ensemble, opened anew in a thread of its own when another took its place.

    Whoever has taken `spade` goes on with that one: its files stay mapped, though a writer
    may have removed their names.

    Parameters
    ----------
    folder : Path
    opener : callable
    every : float
        Seconds between looks at the folder.
    on_reload : callable, optional
        Is told, after an attempt to open a changed index, whether that went well.

    Raises
    ------
    SpadeError
        If it cannot be opened now.
    """

    RETRY = 30.0
    """Seconds after which an index that could not be opened is tried again."""

    def __init__(
        self, folder: Path, opener: Opener, every: float = 1.0,
        on_reload: Callable[[bool], object] = lambda well: None,
    ) -> None:
        self.folder = folder
        self.on_reload = on_reload
        self._opener = opener
        self._every = every
        self._stamp = self._look()
        self._retry_at = float("inf")
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="index watcher", daemon=True)
        self.spade = self._open(())

    def watch(self) -> None:
        """Begin to look whether the index changes."""
        self._thread.start()

    def close(self) -> None:
        """End the watching."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _look(self) -> _Stamp:
        """Return what tells one manifest's file from the next, which is renamed into place."""
        looks: list[tuple[int, int, int] | None] = []
        for name in (MANIFEST, ENSEMBLE):
            try:
                found = (self.folder / name).stat()
                looks.append((found.st_ino, found.st_mtime_ns, found.st_size))
            except OSError:
                looks.append(None)
        return tuple(looks)

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            stamp = self._look()
            if stamp == self._stamp and time.monotonic() < self._retry_at:
                continue
            self._stamp = stamp
            try:
                if read_manifest(self.folder) != manifest_of(self.spade):
                    self.spade = self._open([one.network for one in members_of(self.spade)])
                    logger.warning("%s was replaced; generation %s is in service now",
                                   self.folder, manifest_of(self.spade).generation)
                    self.on_reload(True)
                self._retry_at = float("inf")
            except Exception as error:  # whatever it is, the old index goes on serving
                logger.warning("%s was replaced by what cannot be served; the old one stays "
                               "in service: %s", self.folder, error)
                self._retry_at = time.monotonic() + self.RETRY
                self.on_reload(False)

    def _open(self, networks: Sequence[Backbone]) -> Detector:
        """Open the folder and query it once, so that no client waits for what is done but once."""
        spade = self._opener(networks)
        crop = np.array(spade.index_.crops[0])
        for size in {1, members_of(spade)[0].batch_size}:
            for result in spade.query([crop] * size):
                spade.score_of(result)
        _ = spade.image_threshold  # may have to be found anew
        return spade
