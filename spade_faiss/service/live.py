"""The index or ensemble in service, and what takes its place when its folder changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import TIMEOUT_MAX, Event, Lock, Thread

import cv2
import numpy as np

from .._support.text import valid
from ..detector import Detector
from ..errors import SpadeError
from ..features import Backbone
from ..index import is_ensemble
from ..index.folders import Stamp, stamp_of
from ..index.manifest import ENSEMBLE, MANIFEST
from ..index.record import file_sha256

logger = logging.getLogger("spade_faiss")

Opener = Callable[[Path, Sequence[Backbone]], Detector]
"""Opens what a folder holds, given the networks that are loaded already."""


@dataclass(frozen=True, eq=False)
class Served:
    """An index as it was opened.

    Attributes
    ----------
    detector : Detector
    manifest_sha256 : str
        Of the manifest's file. Every change makes another, also one of the thresholds alone.
    stamp : tuple
        What the folder's manifest looked like.
    seconds : float
        How long it took to open.
    """

    detector: Detector
    manifest_sha256: str
    stamp: Stamp
    seconds: float


@dataclass(frozen=True)
class Awaited:
    """What the folder holds instead of the index in service.

    Attributes
    ----------
    stamp : tuple
        What its manifest looks like.
    since : datetime
        When the folder was first seen to hold another index than that in service.
    until : datetime
        When it should be in service, if it takes as long to open as the last one did; of one
        that could not be opened, when that is tried again.
    problem : str or None
        Why it could not be opened.
    """

    stamp: Stamp
    since: datetime
    until: datetime
    problem: str | None = None


class LiveIndex:
    """An index or ensemble, opened anew in a thread of its own when another took its place.

    Whoever has taken `detector` goes on with that one: its files stay mapped, though a writer
    may have removed their names.

    Parameters
    ----------
    folder : Path
    opener : callable
    every : float
        Seconds between looks at the folder while nobody calls `take`, which looks at once.
    on_reload : callable, optional
        Is told, after an attempt to open a changed index, "served" or "refused".
    name : str, optional
        What notes are logged of, if the service has several indices.

    Raises
    ------
    SpadeError
        If it cannot be opened now, or `every` is no time.
    """

    RETRY = 30.0
    """Seconds after which an index that could not be opened is tried again."""

    def __init__(
        self,
        folder: Path,
        opener: Opener,
        every: float = 1.0,
        on_reload: Callable[[str], object] = lambda outcome: None,
        name: str | None = None,
    ) -> None:
        if not 0 < every <= TIMEOUT_MAX:
            raise SpadeError(f"every = {every} must be a finite time, more than 0 seconds")
        self.folder = folder
        self.on_reload = on_reload
        self._opener = opener
        self._every = every
        self._name = name
        self._awaited: Awaited | None = None
        self._lock = Lock()
        self._ending = False
        self._wake = Event()
        self._thread = Thread(target=self._watch, name="index watcher", daemon=True)
        self._served = self._open(())

    @property
    def detector(self) -> Detector:
        """The index or ensemble in service."""
        return self._served.detector

    def take(self) -> tuple[Served, Awaited | None]:
        """Return what is in service, and what the folder holds now if that is another.

        The other one begins to be opened at once. None promises that nothing had taken the
        place of what is in service when this was called.
        """
        served = self._served  # before the look, so that an older one is never taken for the newest
        stamp = stamp_of(self.folder)
        return served, None if stamp == served.stamp else self._notice(stamp)

    def open_other(self, folder: Path) -> Detector:
        """Return what another folder holds, opened as if it were in service."""
        return self._opener(folder, [member.network for member in self.detector.members])

    def watch(self) -> None:
        """Begin to look whether the index changes."""
        self._thread.start()

    def close(self) -> None:
        """End the watching."""
        self._ending = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _notice(self, stamp: Stamp) -> Awaited:
        """Return what is known of the index whose manifest looks like this."""
        with self._lock:
            awaited = self._awaited
            if awaited is None or awaited.stamp != stamp:
                now = datetime.now(UTC)
                since = now if awaited is None else awaited.since
                awaited = Awaited(stamp, since, now + timedelta(seconds=self._served.seconds))
                self._awaited = awaited
                self._wake.set()
            return awaited

    def _watch(self) -> None:
        while True:
            self._wake.wait(self._every)
            self._wake.clear()
            if self._ending:
                return
            stamp = stamp_of(self.folder)
            if stamp == self._served.stamp:
                self._awaited = None
                continue
            awaited = self._notice(stamp)
            if awaited.problem is None or datetime.now(UTC) >= awaited.until:
                self._replace(awaited)

    def _replace(self, awaited: Awaited) -> None:
        """Open what the folder holds now, and put it in service."""
        try:
            old = self._served
            if self._digest() == old.manifest_sha256:  # touched, or copied onto itself
                self._served = replace(old, stamp=awaited.stamp)
            else:
                self._served = self._open([one.network for one in old.detector.members])
                logger.warning(
                    "%s was replaced; generation %s, manifest %.8s, is in service now",
                    self.folder,
                    self.detector.manifest.generation,
                    self._served.manifest_sha256,
                )
                self.on_reload("served")
            self._awaited = None
        except Exception as error:  # whatever it is, the old index goes on serving
            logger.warning(
                "%s was replaced by what cannot be served; the old one stays in service: %s",
                self.folder,
                str(error),  # itself, it would keep the index for as long as the line is kept
            )
            until = datetime.now(UTC) + timedelta(seconds=self.RETRY)
            self._awaited = replace(awaited, until=until, problem=str(error))
            self.on_reload("refused")

    def _open(self, networks: Sequence[Backbone]) -> Served:
        """Open the folder and query it once, so that no client waits for what is done but once."""
        start = time.monotonic()
        while True:
            stamp = stamp_of(self.folder)
            detector = self._opener(self.folder, networks)
            digest = self._digest()
            if stamp_of(self.folder) == stamp:  # else a writer came between
                break
        _warm_up(detector)
        for note in detector.notes:
            logger.warning("note: %s%s", f"{self._name}: " if self._name else "", valid(note))
        return Served(detector, digest, stamp, time.monotonic() - start)

    def _digest(self) -> str:
        """Return the SHA-256 of the manifest's file; of none if it is just gone."""
        name = ENSEMBLE if is_ensemble(self.folder) else MANIFEST
        try:
            return file_sha256(self.folder / name)
        except FileNotFoundError:
            return ""


def _warm_up(detector: Detector) -> None:
    """Query once, alone and as a batch, and find the threshold, which may have to be drawn anew."""
    index = detector.index_
    first = index.manifest.images[0]
    picture = cv2.resize(np.asarray(index.crops[0]), (first.width, first.height))
    for size in {1, detector.settings.batch_size}:
        for result in detector.query([np.asarray(picture, np.uint8)] * size):
            detector.score_of(result)
    _ = detector.image_threshold
