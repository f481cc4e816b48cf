"""Tell when the frames of a video are shown, and how many of them are missing."""

from __future__ import annotations

import math

ROUNDING = 1e-3
"""Seconds by which a time stamp may be off: Matroska rounds to milliseconds."""


class Clock:
    """Times of frames in seconds, by their time stamps; by the nominal rate where these fail.

    Parameters
    ----------
    step : float
        Seconds from frame to frame, by the nominal rate.
    """

    def __init__(self, step: float) -> None:
        self._step = step
        self._first = self._told = math.nan
        self._end = -math.inf
        self._regular = 0

    def start(self, times: list[float]) -> None:
        """Take the earliest of some time stamps for the start, if none has been taken before."""
        if math.isnan(self._first):
            self._first = min(filter(math.isfinite, times), default=math.nan)

    def reach(self, time: float, duration: float) -> None:
        """Take note that the file holds something that is shown then; 0 stands for one step."""
        self._end = max(self._end, time + (duration or self._step))

    def tell(self, time: float) -> float:
        """Return when the next frame is shown, from the start on; later than the one before it."""
        shown = time - self._first
        if math.isnan(self._told):
            self._told = max(0.0, shown)
            return self._told
        interval = shown - self._told
        self._regular += abs(interval - self._step) <= ROUNDING + self._step / 10
        self._told += interval if interval > 0 else self._step
        return self._told

    def missing(self, announced: float, count: int) -> int:
        """Return how many frames are missing of those that last until the time `announced`."""
        if math.isnan(self._first):
            return 0
        seconds = announced - self._end
        if self._regular >= 0.9 * count:  # then frames may be missing anywhere
            seconds = max(seconds, announced - self._first - count * self._step)
        # Some files announce a frame or so more than they hold.
        enough = seconds <= max(1.5 * self._step, announced / 100)
        return 0 if enough else round(seconds / self._step)
