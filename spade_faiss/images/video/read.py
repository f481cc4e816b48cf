"""Read the frames of videos as images."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import floor
from pathlib import Path

from ...errors import SpadeError
from .. import SUFFIXES, Found, Frame, OnError, OnNote, Source, find_images
from ..motion import GAP
from .clock import ROUNDING
from .decode import Tally, whole_frames
from .picture import ToRGB, deinterlaced

VIDEO_SUFFIXES = frozenset(
    {
        ".3gp",
        ".asf",
        ".avi",
        ".flv",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".vob",
        ".webm",
        ".wmv",
    }
)
"""What the names of video files end in, in small letters."""
_MOST_FPS = 1_000_000
"""Far more than cameras take. Times by it stay within what a float holds."""


def is_video(path: Path) -> bool:
    """Return whether a file's suffix is a video's."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def check_fps(fps: float | None) -> None:
    """Refuse a number of frames a second that is no number, or that no video has.

    Raises
    ------
    SpadeError
        If it is not more than 0, or more than a million.
    """
    if fps is not None and not 0 < fps <= _MOST_FPS:
        raise SpadeError(f"fps = {fps} must be more than 0, and {_MOST_FPS} at most")


def read_frames(
    path: str | os.PathLike[str],
    fps: float | None = None,
    on_warning: OnError | None = None,
    *,
    motion: bool = False,
) -> Iterator[Frame]:
    """Yield the frames of a video in order, RGB, each named `<path>#<number>`, from #000000.

    One frame is decoded at a time, or a few where the codec shows frames in another order than
    it stores them. Frames are turned upright as the file says, and their colours are converted
    by the matrix and range that it gives (BT.601, limited, where it gives none). Interlaced
    frames are deinterlaced, one picture a frame. Pixels that are not square stay as they are.

    The rate may vary: frames are chosen by their own time stamps, or by the nominal rate where
    these do not increase. A frame that cannot be decoded whole is left out, and so are those
    built on it, up to the next key frame; numbers count them all the same.

    Parameters
    ----------
    path : path
        Any file that FFmpeg reads (mp4, avi, mov, mkv, webm …).
    fps : float in (0, 1000000], optional
        How many frames to take a second, at most; by default all. Numbers count all frames.
    on_warning : callable, optional
        Called with (path, why), after the frames that are there, if frames are damaged, if the
        video ends before the file says it does (not every kind of file says), or if the file
        holds other videos as well. By default a Python warning is issued.
    motion : bool
        Whether each frame comes with the one before it; see `with_motion`.

    Raises
    ------
    SpadeError
        If the file cannot be opened as a video, or no frame of it can be decoded, or `fps` is
        out of its range.
    """
    name = os.fspath(path)
    check_fps(fps)
    tally, to_rgb, due = Tally(), ToRGB(), 0.0
    before = _Before()
    for decoded in deinterlaced(whole_frames(name, tally)):
        chosen = decoded.seconds >= due - ROUNDING
        if not (chosen or motion):
            continue
        frame = Frame(f"{name}#{decoded.number:06d}", to_rgb(decoded.picture), decoded.seconds)
        if motion:
            frame = before.added_to(frame)
        if chosen:
            yield frame
            if fps is not None:
                due = (floor((decoded.seconds + ROUNDING) * fps) + 1) / fps
    if tally.frames == tally.damaged:
        raise SpadeError(f"{name}: no frame of it can be decoded; copy it again")
    for why in _losses(tally):
        if on_warning is None:
            warnings.warn(f"{name} {why}", stacklevel=2)
        else:
            on_warning(name, why)


class _Before:
    """Keeps the frames of the last tenth of a second, to give each next one that before it."""

    def __init__(self) -> None:
        self._kept: deque[Frame] = deque()

    def added_to(self, frame: Frame) -> Frame:
        """Return the next frame with the one before it.

        That is the last that was shown a tenth of a second before, or earlier. At the start of a
        video it is the first frame, which is its own: in that nothing moves.
        """
        self._kept.append(frame)
        while len(self._kept) > 1 and self._kept[1].seconds <= frame.seconds - GAP + ROUNDING:
            self._kept.popleft()
        return replace(frame, before=self._kept[0])


def with_motion(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield frames, each with the one that its motion is seen by.

    Parameters
    ----------
    frames : iterable of Frame
        In order. Their seconds say how fast things move, and so how fast those of other videos
        may: they must be true to what the detector learns from.
    """
    before = _Before()
    for frame in frames:
        yield before.added_to(frame)


def _losses(tally: Tally) -> Iterator[str]:
    """Say what of a video was not read, in a line each."""
    whole, total = tally.frames - tally.damaged, tally.frames + tally.missing
    if whole < total:
        what = "is cut short" if tally.missing else "is damaged"
        yield (f"{what}: {whole} of {total} frames are whole, and those are used; copy it again")
    if tally.unused:
        yield tally.unused


def open_sources(
    files: Iterable[Found], fps: float | None, on_error: OnError, *, motion: bool = False
) -> Iterator[Source]:
    """Yield images as paths, and videos as their frames; a video that fails is reported.

    With `motion`, each frame comes with the one before it.
    """
    for file in files:
        if not is_video(file.path):
            yield file.path
            continue
        try:
            yield from read_frames(file.path, fps, on_error, motion=motion)
        except SpadeError as error:
            on_error(str(file.path), str(error).removeprefix(f"{file.path}: "))


def holds_videos(folder: Path) -> bool:
    """Say whether there are videos in a folder, at any depth."""

    def ignore(*_: str) -> None:
        pass

    return bool(find_images([folder], ignore, VIDEO_SUFFIXES, ignore))


def find_sources(
    folder: Path,
    fps: float,
    on_error: OnError,
    on_note: OnNote | None = None,
    *,
    motion: bool = False,
) -> Iterable[Source]:
    """Return the images of a folder as paths; where videos are among them, a stream of all.

    Parameters
    ----------
    folder : Path
    fps : float
        How many frames of a video to take a second.
    on_error, on_note : callable
        As `find_images` and `read_frames` take them.
    motion : bool
        Whether each frame of a video comes with the one before it.

    Raises
    ------
    SpadeError
        If the folder holds neither images nor videos.
    """
    found = find_images([folder], on_error, SUFFIXES | VIDEO_SUFFIXES, on_note)
    if not found:
        raise SpadeError(f"{folder} holds no images (PNG, JPEG, BMP, TIFF, WebP) or videos")
    if any(is_video(one.path) for one in found):
        return open_sources(found, fps, on_error, motion=motion)
    return [one.path for one in found]
