"""The newest frame of a camera or network stream, which is opened again when it breaks off."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Condition, Event, Thread
from typing import Self
from urllib.parse import SplitResult, urlsplit

import av
from av.container import InputContainer
from av.video.frame import VideoFrame

from ..._support.text import host_of
from ...errors import SpadeError
from ..motion import GAP
from ..source import Frame
from .picture import ToRGB

_CAMERA = re.compile(r"camera:(\d+)")
_STREAM = re.compile(r"(rtsp|rtsps|rtmp|rtmps|http|https|udp|tcp|srt)://.", re.IGNORECASE)
_TIMEOUT = 5.0
"""Seconds without an answer, or without a frame, after which a source is opened again."""
_UNDECODED = 30.0
"""The same where something comes, and none of it can be decoded: key frames may be far apart."""
_FIRST, _LONGEST = 0.25, 5.0
"""Seconds to wait before a source is opened again: at first, and at most; they double."""


def is_live(argument: str) -> bool:
    """Say whether an argument names a camera or a stream, and no file."""
    return argument.startswith("camera:") or "://" in argument


def check_source(source: str) -> None:
    """Refuse an argument that names no source that can be read, by raising SpadeError."""
    _address(source)


def shown_source(argument: str) -> str:
    """Return what a live source is called: its address without a name, a password or a query."""
    if "://" not in argument:
        return argument
    parts = _parts(argument)
    return f"{parts.scheme}://{host_of(parts)}{parts.path}"


@dataclass(frozen=True)
class _Taken:
    """A decoded picture, when it came, and its place in time by the stream's own clock."""

    picture: VideoFrame
    came: datetime
    seconds: float


class LiveSource:
    """Reads a source in a thread of its own, and keeps the newest frame alone.

    Whoever is slower than the source gets the newest frame each time; those between are left out.
    A source that does not answer or breaks off is opened again, for as long as it takes. One that
    gave frames once is, whatever is wrong with it later.

    Parameters
    ----------
    source : str
        `camera:0`, the first camera of this machine; or the address of a stream, such as
        `rtsp://HOST/PATH` or `http://HOST/PATH`.
    motion : bool
        Whether each frame comes with the one before it, by which motion is seen.
    say : callable
        Is given a line when the source is gone, and when it is back; from another thread.

    Attributes
    ----------
    came, damaged : int
        Frames that came, and those of them that are left out: not whole, or not to be decoded.

    Raises
    ------
    SpadeError
        If the argument names no source that can be read.
    """

    def __init__(
        self, source: str, *, motion: bool = False, say: Callable[[str], object] = lambda line: None
    ) -> None:
        self._address, self._format, self._options = _address(source)
        self.name = shown_source(source)
        self.came = self.damaged = 0
        self._motion, self._say = motion, say
        self._newest: _Taken | None = None
        self._recent: deque[_Taken] = deque()
        self._ready, self._ending = Condition(), Event()
        self._refused: SpadeError | None = None
        self._has_clock = False
        self._to_rgb = ToRGB()
        self._thread = Thread(target=self._run, name="camera", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(2 * _TIMEOUT)

    def take(self, timeout: float) -> Frame | None:
        """Return the newest frame, unless it was taken before: then wait for another.

        None if there is none within `timeout` seconds. The frame is called `<source>#<time>`, when
        it came, in UTC.

        Raises
        ------
        SpadeError
            If the source is a recording, or of a kind that cannot be read.
        """
        with self._ready:
            self._ready.wait_for(lambda: self._newest or self._refused, timeout)
            if self._refused:
                raise self._refused
            taken, self._newest = self._newest, None
            before = self._recent[0] if self._recent else None
        if taken is None:
            return None
        frame = self._frame(taken)
        if self._motion and before is not None:
            earlier = frame if before is taken else self._frame(before)
            frame = Frame(frame.name, frame.image, frame.seconds, before=earlier)
        return frame

    def _frame(self, taken: _Taken) -> Frame:
        moment = taken.came.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        return Frame(f"{self.name}#{moment}", self._to_rgb(taken.picture), taken.seconds)

    def _run(self) -> None:
        wait, gone = _FIRST, 0.0
        while not self._ending.is_set():
            came, why = self.came, "it ended"
            try:
                with av.open(
                    self._address,
                    "r",
                    self._format,
                    self._options,
                    timeout=(_TIMEOUT, _TIMEOUT),
                ) as container:
                    for picture in self._pictures(container):
                        if gone:
                            self._say(f"{self.name} is back after {time.monotonic() - gone:.0f} s")
                            gone = 0.0
                        self._put(picture)
            except Exception as error:  # whatever it is, the thread must not end unsaid
                why = _reason(error)
                unfit = isinstance(error, SpadeError | av.ProtocolNotFoundError | ValueError)
                if unfit and not self.came:
                    with self._ready:
                        self._refused = SpadeError(f"{self.name}: {why}")
                        self._ready.notify()
                    return
            if self._ending.is_set():
                return
            if self.came > came:
                wait = _FIRST
            if not gone:
                gone = time.monotonic()
                self._say(f"{self.name} gives no frames ({why}); it is opened again until it does")
            self._ending.wait(wait)
            wait = min(_LONGEST, 2 * wait)

    def _pictures(self, container: InputContainer) -> Iterator[VideoFrame]:
        """Yield pictures until the source breaks off or the reading ends."""
        if not container.streams.video:
            raise SpadeError("holds no video")
        if (container.duration or 0) > 0:
            raise SpadeError("is a recording, not live; fetch it, and query the file")
        self._has_clock = container.format.name != "mpjpeg"
        self._recent.clear()
        # Threads by frame would each hold one back.
        container.streams.video[0].thread_type = "SLICE"
        last = time.monotonic()
        for packet in container.demux(video=0):
            try:
                pictures = packet.decode()
            except av.InvalidDataError:
                if time.monotonic() > last + _UNDECODED:
                    raise
                self.came, self.damaged = self.came + 1, self.damaged + 1
                pictures = []
            for picture in pictures:
                if self._ending.is_set():
                    return
                last = time.monotonic()
                yield picture
            if self._ending.is_set():
                return

    def _put(self, picture: VideoFrame) -> None:
        """Keep a frame as the newest, and those by which its motion is seen."""
        self.came += 1
        if picture.is_corrupt:
            self.damaged += 1
            return
        # Pictures that come one by one over HTTP have no time of their own.
        known = self._has_clock and picture.time is not None
        taken = _Taken(
            picture, datetime.now(UTC), float(picture.time or 0) if known else time.monotonic()
        )
        with self._ready:
            self._newest = taken
            if self._motion:
                if self._recent and taken.seconds < self._recent[-1].seconds:
                    self._recent.clear()  # the stream's clock was set back
                self._recent.append(taken)
                while len(self._recent) > 1 and self._recent[1].seconds <= taken.seconds - GAP:
                    self._recent.popleft()
            self._ready.notify()


def _parts(address: str) -> SplitResult:
    """Return the parts of an address; what is wrong with it is said without showing it."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise SpadeError(
            "the address of the stream has no host and port that can be read: in a name or a "
            "password, write / as %2F, # as %23, ? as %3F, [ as %5B"
        ) from None
    return parts


def _reason(error: Exception) -> str:
    """Return in words what went wrong: FFmpeg's own text would show the address."""
    if isinstance(error, SpadeError):
        return str(error)
    strerror: str | None = getattr(error, "strerror", None)
    return strerror or type(error).__name__


def _address(source: str) -> tuple[str, str | None, dict[str, str]]:
    """Return what to open, its format if that must be said, and options of FFmpeg.

    Raises
    ------
    SpadeError
        If the argument names no source that can be read.
    """
    if source.startswith("camera:"):
        found = _CAMERA.fullmatch(source)
        if not found:
            raise SpadeError(f"{source}: name a camera by its number, as in camera:0")
        if sys.platform == "linux":
            return f"/dev/video{found[1]}", "v4l2", {}
        if sys.platform == "darwin":
            return found[1], "avfoundation", {}
        raise SpadeError(
            f"{source}: cameras are read by their number on Linux and macOS alone; name the "
            "address of a stream"
        )
    shown = shown_source(source)  # which also says whether it can be read
    if not _STREAM.match(source):
        raise SpadeError(
            f"{shown}: is no address of a stream: rtsp, http, https, rtmp, srt, udp "
            "and tcp are read"
        )
    options = {"fflags": "nobuffer", "flags": "low_delay", "analyzeduration": "1000000"}
    if source.lower().startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # by UDP, pictures lose parts
    return source, None, options
