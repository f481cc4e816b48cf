"""Changes the index in service in a thread of its own, while the one before goes on answering."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Literal, TypeVar

from ..detector import Detector, open_detector
from ..detector.executor import ThisProcess
from ..detector.pipeline import Pipeline
from ..errors import SpadeError
from .limits import Refusal
from .live import LiveIndex

logger = logging.getLogger("spade_faiss")

Made = TypeVar("Made")
Work = Literal["learning", "trying", "adding", "returning"]
_LOOK = 0.05
"""Seconds between looks whether the new index is in service."""
_BUSY: dict[str, str] = {
    "learning": "another region is being learnt",
    "trying": "images are being tried",
    "adding": "images are being added",
    "returning": "the index before is being put back",
}


@dataclass(frozen=True)
class Job:
    """What became of a change that was asked for.

    Attributes
    ----------
    state : "idle", "failed", or what is being done
    since : datetime or None
    progress, problem : str or None
    """

    state: Work | Literal["idle", "failed"] = "idle"
    since: datetime | None = None
    progress: str | None = None
    problem: str | None = None

    @property
    def working(self) -> bool:
        """Whether it is not done yet."""
        return self.state not in ("idle", "failed")


class Background:
    """Does one thing at a time to an index.

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
        self._jobs: dict[str, Job] = {}

    def job(self, of: str) -> Job:
        """Return what became of the last change of a kind."""
        return self._jobs.get(of, Job())

    def check_editable(self) -> None:
        """Refuse if the index may not be changed.

        Raises
        ------
        Refusal
            403 or 409.
        """
        if not self._editable:
            raise Refusal(
                403, "this service does not change its index: start it with `editable=True`"
            )
        if not os.access(self._live.folder, os.W_OK):
            raise Refusal(409, f"{self._live.folder} cannot be written by the service")

    def begin(self, of: str, doing: Work, work: Callable[[], None]) -> None:
        """Begin to change the index.

        Parameters
        ----------
        of : str
            The kind of the change.
        doing : Work
            What its job's state is meanwhile.
        work : callable

        Raises
        ------
        Refusal
            409 if another change is being made.
        """
        with self._lock:
            for job in self._jobs.values():
                if job.working:
                    raise Refusal(409, f"{_BUSY[job.state]}; ask again when it counts", 5)
            self._jobs[of] = Job(doing, datetime.now(UTC), "begins")
            self._thread = Thread(target=self._work, args=(of, work), name=doing, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End what is being made, as if it had not been asked for."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def opened(self, folder: Path, told: Callable[[str], None]) -> Detector:
        """Return the detector of a folder by its own settings, whatever queries are searched by.

        It tells what it does, and ends when the service does.
        """
        served = self._live.detector
        settings = served.settings
        detector = open_detector(
            folder,
            networks=[member.network for member in served.members],
            calibrate=False,
            device=settings.device,
            engine=settings.engine,
            batch_size=settings.batch_size,
        )
        return detector.on(_Watched(self._ending, told))

    def tell(self, of: str, progress: str) -> None:
        """Say how far a change is."""
        self._jobs[of] = replace(self._jobs[of], progress=progress)

    def wait_until_served(self, of: str) -> None:
        """Wait until what the folder holds now is in service.

        Raises
        ------
        SpadeError
            If it cannot be opened.
        """
        self.tell(of, "the new index is being opened")
        while True:
            _, awaited = self._live.take()
            if awaited is None or self._ending.is_set():
                return
            if awaited.problem:
                raise SpadeError(awaited.problem)
            time.sleep(_LOOK)

    def _work(self, of: str, work: Callable[[], None]) -> None:
        try:
            work()
            self._jobs[of] = replace(self._jobs[of], state="idle", progress=None)
        except Exception as error:  # whatever it is, the old index goes on serving
            line = (
                str(error) if isinstance(error, SpadeError) else f"{type(error).__name__}: {error}"
            )
            logger.warning("%s was not changed: %s", self._live.folder, line)
            self._jobs[of] = replace(self._jobs[of], state="failed", progress=None, problem=line)


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
