"""Judge the frames of a camera or stream, the newest one each time."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from ..errors import SpadeError
from ..images.video.live import LiveSource
from ..images.video.read import check_fps
from ..verdict.judge import OK
from .current import CurrentIndex
from .record import Arrived, Recorder
from .scan import State

_MINUTE = 60.0
_TICK = 0.1
"""Seconds after which it is looked whether to end."""


@dataclass(frozen=True)
class Span:
    """How much of a live source is judged.

    Attributes
    ----------
    frames : int or None
        At most so many; None for no end.
    seconds : float or None
        For so long, at most.
    fps : float or None
        At most so many a second.
    worst : int
        Of how many frames of each minute that are not OK there are files.

    Raises
    ------
    SpadeError
        If one is no such number.
    """

    frames: int | None = None
    seconds: float | None = None
    fps: float | None = None
    worst: int = 10

    def __post_init__(self) -> None:
        check_fps(self.fps)
        if self.frames is not None and self.frames < 1:
            raise SpadeError(f"`frames={self.frames}` must be 1 or more")
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0):
            raise SpadeError(f"`seconds={self.seconds:g}` must be more than 0")


def judge_live(
    source: LiveSource, index: CurrentIndex, recorder: Recorder, span: Span, stop: Event
) -> int:
    """Judge frames until an event is set or the span is over; return how many.

    Each time one is judged, the newest is next, and those that came meanwhile are left out.

    Parameters
    ----------
    source : LiveSource
    index : CurrentIndex
    recorder : Recorder
    span : Span
    stop : Event

    Raises
    ------
    SpadeError
        If the source is none that can be read.
    OSError
        If the disk that results go to is full, say.
    """
    recorder.go_on()
    until = math.inf if span.seconds is None else time.monotonic() + span.seconds
    count, due = 0, -math.inf
    minute, written = time.monotonic(), 0
    while not stop.is_set() and time.monotonic() < until and count != span.frames:
        if (pause := due - time.monotonic()) > 0:
            stop.wait(min(_TICK, pause))
            continue
        frame = source.take(_TICK)
        if frame is None:
            continue
        due = time.monotonic() + (1 / span.fps if span.fps else 0)
        if time.monotonic() >= minute + _MINUTE:
            minute, written = time.monotonic(), 0
        moment = frame.name.rpartition("#")[2]
        name = frame.name[: -len(moment) - 1]
        one = Arrived(
            frame.name,
            frame,
            Path(_file_name(name), moment.replace(":", "")),
            State(0, 0),
            b"",
            None if written < span.worst else False,
        )
        for _, event in recorder.judge(index.take(), _only(one)):
            count += 1
            written += event["verdict"] != OK
    return count


def _only(one: Arrived) -> Iterator[Arrived]:
    yield one


def _file_name(source: str) -> str:
    """Return what the folder of a source's files is called: letters, digits, dots and lines."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", source).strip("-.") or "source"
