"""Open a video file, choose its stream, and read what it says of its length."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from ...errors import SpadeError

_USUAL_RATE = 25.0
"""Frames a second of a video that does not say."""


@contextmanager
def opened(path: str) -> Iterator[tuple[InputContainer, VideoStream, str]]:
    """Open a file: its container, its video, and what of it is not used ("" if nothing).

    Raises
    ------
    SpadeError
        If there is no such file, or it cannot be read as a video.
    """
    if not Path(path).is_file():
        raise SpadeError(f"{path}: no such video file")
    try:
        # Whatever its name, it is a file; and what a playlist in it names is not fetched.
        container = av.open(
            f"file:{path}", "r", options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except PermissionError:
        raise SpadeError(f"{path}: permission to read it is missing") from None
    except (av.FFmpegError, OSError):
        raise SpadeError(
            f"{path}: cannot be opened as a video: it is damaged or cut short, "
            "or of a kind that FFmpeg does not know"
        ) from None
    with container:
        yield container, *_choose(container, path)


def _choose(container: InputContainer, path: str) -> tuple[VideoStream, str]:
    """Return the video to use, and what is left aside; pictures of a sound's cover are no video."""
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    videos = [one for one in container.streams.video if not one.disposition & pictures]
    if not videos:
        what = "holds sound, but no video" if container.streams.audio else "holds no video"
        raise SpadeError(f"{path}: {what}")
    best = container.streams.best("video")
    number = next((i for i, one in enumerate(videos) if one is best), 0)
    chosen = videos[number]
    if chosen.codec_context is None:
        raise SpadeError(f"{path}: FFmpeg has no decoder for its video; convert it")
    aside = (
        ""
        if len(videos) == 1
        else (
            f"holds {len(videos)} videos: number {number + 1} ({chosen.width}x{chosen.height}) is "
            "used alone; split it to use the others"
        )
    )
    return chosen, aside


def nominal_step(stream: VideoStream) -> float:
    """Return the seconds from frame to frame, by the rate that the file gives."""
    rate = float(stream.average_rate or 0)
    return 1 / (rate if 0 < rate < 1000 else _USUAL_RATE)


def announced_end(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the second at which the file says that its video ends, if it does."""
    if container.format.name == "avi" and stream.frames:  # its duration is of what is there
        return stream.frames * nominal_step(stream)
    if stream.duration and stream.time_base:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    # Matroska's other duration is that of the longest stream.
    if said := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "").strip()):
        hours, minutes, seconds = map(float, said.groups())
        return 3600 * hours + 60 * minutes + seconds
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return None
