"""Gives the index in service another region, while the one before goes on answering."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Event, Lock, Thread
from typing import Literal, TypeVar

from ..detector import Detector, open_detector
from ..detector.executor import ThisProcess
from ..detector.fit import check_keeps_all, check_region
from ..detector.pipeline import Pipeline
from ..errors import SpadeError
from ..images.roi import Roi
from .limits import Refusal
from .live import LiveIndex

logger = logging.getLogger("spade_faiss")

Made = TypeVar("Made")
_LOOK = 0.05
"""Seconds between looks whether the new index is in service."""


@dataclass(frozen=True)
class Job:
    """What became of the last region that was asked for.

    Attributes
    ----------
    state : "idle", "learning" or "failed"
    since : datetime or None
    progress, problem : str or None
    """

    state: Literal["idle", "learning", "failed"] = "idle"
    since: datetime | None = None
    progress: str | None = None
    problem: str | None = None


class Relearning:
    """Learns one region at a time, in a thread of its own.

    Parameters
    ----------
    live : LiveIndex
        Puts the new index in service.
    editable : bool
        Whether the index may be changed at all.
    """

    def __init__(self, live: LiveIndex, *, editable: bool) -> None:
        self._live = live
        self._editable = editable
        self._lock = Lock()
        self._ending = Event()
        self._thread: Thread | None = None
        self.job = Job()

    def check_editable(self) -> None:
        """Refuse if the index may not be changed, or cannot be.

        Raises
        ------
        Refusal
            403 or 409.
        """
        if not self._editable:
            raise Refusal(
                403, "this service does not change its index: start it with `editable=True`"
            )
        try:
            for member in self._live.detector.members:
                check_keeps_all(member.index_)
        except SpadeError as error:
            raise Refusal(409, str(error)) from None
        if not os.access(self._live.folder, os.W_OK):
            raise Refusal(409, f"{self._live.folder} cannot be written by the service")

    def begin(self, roi: Roi | None) -> None:
        """Begin to learn a region; None is everything.

        Raises
        ------
        Refusal
            403 or 409 if the index cannot be changed now, 422 if the region does not suit it.
        """
        self.check_editable()
        detector = self._live.detector
        try:
            for member in detector.members:
                check_region(member.index_, roi)
        except SpadeError as error:
            raise Refusal(422, str(error)) from None
        with self._lock:
            if self.job.state == "learning":
                raise Refusal(409, "another region is being learnt; ask again when it counts", 5)
            self.job = Job("learning", datetime.now(UTC), "begins")
            self._thread = Thread(
                target=self._work, args=(detector, roi), name="relearning", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """End what is being learnt, as if it had not been asked for."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self, served: Detector, roi: Roi | None) -> None:
        try:
            self._learn(served, roi)
            self.job = replace(self.job, state="idle", progress=None)
        except Exception as error:  # whatever it is, the old index goes on serving
            line = (
                str(error) if isinstance(error, SpadeError) else f"{type(error).__name__}: {error}"
            )
            logger.warning("%s was not given another region: %s", self._live.folder, line)
            self.job = replace(self.job, state="failed", progress=None, problem=line)

    def _learn(self, served: Detector, roi: Roi | None) -> None:
        # By the index's own settings, whatever queries are searched by here.
        settings = served.settings
        detector = open_detector(
            self._live.folder,
            networks=[member.network for member in served.members],
            calibrate=False,
            device=settings.device,
            engine=settings.engine,
            batch_size=settings.batch_size,
        )
        if detector.on(_Watched(self._ending, self._tell)).look_at(roi):
            self._tell("the new index is being opened")
        while True:
            _, awaited = self._live.take()
            if awaited is None or self._ending.is_set():
                return
            if awaited.problem:
                raise SpadeError(awaited.problem)
            time.sleep(_LOOK)

    def _tell(self, progress: str) -> None:
        self.job = replace(self.job, progress=progress)


class _Watched(ThisProcess):
    """Works in this process, tells what it does, and ends when it is told to."""

    def __init__(self, ending: Event, tell: Callable[[str], None]) -> None:
        self._ending = ending
        self._tell = tell

    def map(
        self, pipeline: Pipeline, calls: Iterable[tuple[Callable[[Pipeline], Made], str]]
    ) -> Iterator[Made]:
        """Yield in order what functions return."""
        for call, about in calls:
            if self._ending.is_set():
                raise SpadeError("the service was ended meanwhile")
            self._tell(about)
            yield call(pipeline)
