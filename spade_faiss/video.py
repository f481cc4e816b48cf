"""Read videos frame by frame, in memory that does not grow with their length."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import floor
from pathlib import Path

# FFmpeg would write about damaged files to standard error; what is wrong is said here, once.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from .errors import SpadeError
from .images import Found, Frame, OnError, Source

VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
    ".mts", ".ogv", ".vob", ".webm", ".wmv",
})
_USUAL_RATE = 25.0
"""Frames a second of a video that does not say."""
_ROUNDING = 1e-3
"""Seconds by which a time stamp may be off: Matroska rounds to milliseconds."""


def is_video(path: Path) -> bool:
    """Return whether a file's suffix is a video's."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_frames(
    path: str | os.PathLike[str], fps: float | None = None, on_warning: OnError | None = None
) -> Iterator[Frame]:
    """Yield the frames of a video in order, RGB, each named `<path>#<number>`, from #000000.

    One frame is decoded at a time. The rate may vary: frames are chosen by their own time
    stamps, or by the nominal rate where these do not increase.

    Parameters
    ----------
    path : path
        Any file that FFmpeg reads (mp4, avi, mov, mkv, webm …).
    fps : float, optional
        How many frames to take a second, at most; by default all. Numbers count all frames.
    on_warning : callable, optional
        Called with (path, why) if the video ends before the frames that it announces (not every
        container does), after the frames that are there. By default a Python warning is issued.

    Raises
    ------
    SpadeError
        If the file cannot be opened as a video, or no frame of it can be decoded.
    """
    name = os.fspath(path)
    if fps is not None and not fps > 0:
        raise SpadeError(f"fps = {fps} must be more than 0")
    with _opened(name) as capture:
        announced = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        rate = capture.get(cv2.CAP_PROP_FPS)
        step = 1 / (rate if 0 < rate < 1000 else _USUAL_RATE)
        number, start, seconds, due = 0, 0.0, 0.0, 0.0
        while capture.grab():
            shown = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if number:
                seconds = shown if shown > seconds else seconds + step
            else:
                start = seconds = due = max(shown, 0.0)
            if seconds >= due - _ROUNDING:
                there, image = capture.retrieve()
                if there:
                    rgb = np.ascontiguousarray(image[..., ::-1], np.uint8)
                    yield Frame(f"{name}#{number:06d}", rgb, seconds)
                    if fps is not None:
                        due = start + (floor((seconds + _ROUNDING - start) * fps) + 1) / fps
            number += 1
    if number == 0:
        raise SpadeError(f"{name}: no frame of it can be decoded; copy it again")
    # Some containers hold no count, but a duration that is right to a frame or so.
    if number + max(1, announced / 100) < announced:
        why = (f"is cut short: {number} of {announced:.0f} frames are there, and those are used; "
               "copy it again")
        if on_warning is None:
            warnings.warn(f"{name} {why}", stacklevel=2)
        else:
            on_warning(name, why)


@contextmanager
def _opened(name: str) -> Iterator[cv2.VideoCapture]:
    if not Path(name).is_file():
        raise SpadeError(f"{name}: no such video file")
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    finally:
        cv2.utils.logging.setLogLevel(level)
    try:
        if not capture.isOpened():
            raise SpadeError(f"{name}: cannot be opened as a video: it is damaged or cut short, "
                             "or of a kind that FFmpeg does not know")
        yield capture
    finally:
        capture.release()


def open_sources(
    files: Iterable[Found], fps: float | None, on_error: OnError
) -> Iterator[Source]:
    """Yield images as paths, and videos as their frames; a video that fails is reported."""
    for file in files:
        if not is_video(file.path):
            yield file.path
            continue
        try:
            yield from read_frames(file.path, fps, on_error)
        except SpadeError as error:
            on_error(str(file.path), str(error).removeprefix(f"{file.path}: "))
