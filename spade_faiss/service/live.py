"""The index in service, and the one that takes its place when its folder changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import numpy as np

from ..detector import Spade
from ..features import Backbone
from ..index.manifest import MANIFEST, Manifest

logger = logging.getLogger("spade_faiss")

Opener = Callable[[Backbone | None], Spade]
"""Opens the index, with a network that is loaded already or, given None, with one of its own."""
_Stamp = tuple[int, int, int]


class LiveIndex:
    """An index that is opened anew, in a thread of its own, when another took its place.

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
        If the index cannot be opened now.
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
        self.spade = self._open(None)

    def watch(self) -> None:
        """Begin to look whether the index changes."""
        self._thread.start()

    def close(self) -> None:
        """End the watching."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _look(self) -> _Stamp | None:
        """Return what tells one manifest's file from the next, which is renamed into place."""
        try:
            found = (self.folder / MANIFEST).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            stamp = self._look()
            if stamp == self._stamp and time.monotonic() < self._retry_at:
                continue
            self._stamp = stamp
            try:
                manifest = Manifest.read(self.folder)
                if manifest != self.spade.index_.manifest:
                    same = manifest.backbone == self.spade.index_.manifest.backbone
                    self.spade = self._open(self.spade.network if same else None)
                    logger.warning("%s was replaced; generation %s is in service now",
                                   self.folder, self.spade.index_.manifest.generation)
                    self.on_reload(True)
                self._retry_at = float("inf")
            except Exception as error:  # whatever it is, the old index goes on serving
                logger.warning("%s was replaced by what cannot be served; the old one stays "
                               "in service: %s", self.folder, error)
                self._retry_at = time.monotonic() + self.RETRY
                self.on_reload(False)

    def _open(self, network: Backbone | None) -> Spade:
        """Open the index and query it once, so that no client waits for what is done but once."""
        spade = self._opener(network)
        crop = np.array(spade.index_.crops[0])
        for size in {1, spade.batch_size}:
            for result in spade.query([crop] * size):
                spade.score_of(result)
        _ = spade.image_threshold  # may have to be found anew
        return spade
