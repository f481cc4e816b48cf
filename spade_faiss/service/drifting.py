"""Whether the images that a service is sent still look like those of its index's calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan
from threading import Lock
from weakref import ReferenceType, ref

from ..detector import Detector
from ..detector.result import Result
from ..errors import SpadeError
from ..verdict import Drift

BATCH = 100
"""Images that are compared together; no image is in two batches, so each test is of new ones."""


class Drifting:
    """Compares the images of one index, `BATCH` at a time, with the good ones of its calibration.

    Parameters
    ----------
    tell : callable
        Is told, after each batch, how far apart the two are (0.5 is not at all, 1 entirely), and
        whether that is worth a warning: 1 or 0. NaN is told where there is nothing to compare
        with.
    """

    def __init__(self, tell: Callable[[float, float], object]) -> None:
        self._tell = tell
        self._lock = Lock()
        # What took its place may be asked of late; the one before is not kept in memory for that.
        self._detector: ReferenceType[Detector] | None = None
        self._scores: list[tuple[float, float]] = []

    def add(self, detector: Detector, results: Sequence[Result]) -> None:
        """Take images that were queried; an index that was replaced begins a new batch."""
        with self._lock:
            if self._detector is None or detector is not self._detector():
                self._detector, self._scores = ref(detector), []
                self._tell(nan, nan)
            for result in results:
                self._scores.append((detector.score_of(result), result.descriptor_score))
                if len(self._scores) == BATCH:
                    self._compare(detector)

    def _compare(self, detector: Detector) -> None:
        scores, descriptor_scores = zip(*self._scores, strict=True)
        self._scores = []
        try:
            found: Drift = detector.drift(scores, descriptor_scores)
        except SpadeError:  # it has no calibration that would do
            return
        self._tell(nan if found.apart is None else found.apart, float(found.warned))
