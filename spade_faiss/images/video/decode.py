"""Decode a video, and tell which of its frames are whole."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .clock import Clock
from .open import announced_end, nominal_step, opened

_ONE_TO_ONE = frozenset({"av1", "hevc", "vp9"})
"""Codecs whose every packet is shown as one frame. Their decoders pass over in silence what they
cannot decode; in other codecs a packet may be a field, or a frame that is never shown."""
_CONCEALING = frozenset({"mjpeg"})
"""Codecs whose decoders give damaged frames without a mark, if they are not told to fail."""
_MOST_HELD = 32
"""Frames that may be shown before one that was decoded before them."""


@dataclass(frozen=True)
class Decoded:
    """A whole frame.

    Attributes
    ----------
    number : int
        Its place among the video's frames as they are shown; damaged ones count.
    seconds : float
        When it is shown, from the first frame on; it increases from frame to frame.
    picture : VideoFrame
        As FFmpeg decodes it.
    """

    number: int
    seconds: float
    picture: VideoFrame


@dataclass
class Tally:
    """What was found in a video, once all of it has been read.

    Attributes
    ----------
    frames, damaged : int
        Frames that are there, and those of them that are not whole.
    missing : int
        Frames that should follow, by the duration that the file announces and its nominal rate.
    unused : str
        What of the file was not looked at, or nothing.
    """

    frames: int = 0
    damaged: int = 0
    missing: int = 0
    unused: str = ""


class _DamagedError(Exception):
    """Something in the video cannot be decoded."""


class _Origin(NamedTuple):
    """Which packet a frame comes from, and when that says the frame is shown, in seconds.

    Key frames number the groups, from 1. A frame is built on frames of its group that were decoded
    before it. A leading one, which is shown before its key frame, is built on the group before as
    well, and no frame but another leading one is built on it.
    """

    order: int
    time: float
    group: int
    key_time: float

    @property
    def leads(self) -> bool:
        return self.time < self.key_time


def whole_frames(path: str, tally: Tally) -> Iterator[Decoded]:
    """Yield the frames that are whole, in the order in which they are shown.

    Several threads decode faster, but one alone tells which packet it could not decode. Where
    damage shows, the file is read again by one, from the start.

    Raises
    ------
    SpadeError
        If the file cannot be opened, or holds no video that can be decoded.
    """
    following = 0
    try:
        for decoded in _decode(path, tally, careful=False):
            following = decoded.number + 1
            yield decoded
    except _DamagedError:
        for decoded in _decode(path, tally, careful=True):
            if decoded.number >= following:
                yield decoded


def _decode(path: str, tally: Tally, *, careful: bool) -> Iterator[Decoded]:
    with opened(path) as (container, stream, unused):
        stream.codec_context.thread_type = "NONE" if careful else "AUTO"
        stream.codec_context.thread_count = int(careful)  # 0: as many as there are processors
        if stream.codec_context.codec.canonical_name in _CONCEALING:
            stream.codec_context.options = {"err_detect": "explode"}
        reading = _Reading(container, stream, careful=careful)
        try:
            yield from reading.frames()
        finally:
            # Its threads need Python's lock to let go of origins, and it is held where they end.
            stream.codec_context.flush_buffers()
        tally.frames, tally.damaged = reading.number, reading.damaged
        tally.missing, tally.unused = reading.missing(), unused


class _Reading:
    """One reading of a video, from its first packet to its last.

    A frame is held until those decoded before it have come: what it is built on may be shown
    later, and turn out to be damaged.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, *, careful: bool) -> None:
        self.number = self.damaged = 0
        self._container, self._stream, self._careful = container, stream, careful
        self._context = stream.codec_context
        self._context.copy_opaque = True
        self._one_to_one = self._context.codec.canonical_name in _ONE_TO_ONE
        self._base = float(stream.time_base or 1)
        self._clock = Clock(nominal_step(stream))
        self._newest = _Origin(-1, -math.inf, 0, -math.inf)
        self._awaited: dict[int, _Origin] = {}  # by order: no frame came yet
        self._fields = False  # whether the last frame is of two, which may be a packet each
        self._held: deque[tuple[_Origin, VideoFrame]] = deque()
        self._times: list[float] = []  # a heap of the times of the frames held
        self._lost: list[float] = []  # a heap of the times of frames that will not come
        self._first_bad: dict[tuple[int, bool], int] = {}  # by group and whether leading: an order

    def frames(self) -> Iterator[Decoded]:
        """Yield the whole frames; unless careful, raise _DamagedError where there is damage."""
        for packet in self._packets():
            self._send(packet)
            while self._held and self._is_due(self._held[0][0].order):
                yield from self._release()
        self._send(None)
        # With several threads an error at the end hides what comes after it.
        last = self._newest.order
        if last in self._awaited and (last - 1 in self._awaited or not self._fields):
            self._damage(self._newest)
        while self._held:
            yield from self._release()
        self._give_up(math.inf, math.inf)
        self._count_lost(math.inf)

    def missing(self) -> int:
        """Return how many frames the file announces beside those that are there."""
        announced = announced_end(self._container, self._stream)
        return 0 if announced is None else self._clock.missing(announced, self.number)

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        try:
            for packet in self._container.demux(self._stream):
                if not packet.size:
                    continue
                order, _, group, key_time = self._newest
                time = self._seconds(packet.pts)
                if packet.is_keyframe:
                    group, key_time = group + 1, time
                packet.opaque = self._newest = _Origin(order + 1, time, group, key_time)
                if not packet.is_discard:  # what an editor has cut off is not shown
                    self._awaited[order + 1] = self._newest
                    self._clock.reach(time, (packet.duration or 0) * self._base)
                if packet.is_corrupt:
                    self._damage(self._newest)
                yield packet
        except (av.FFmpegError, OSError):  # what follows cannot be reached
            self._damage(self._newest)
            heapq.heappush(self._lost, math.inf)

    def _seconds(self, stamp: int | None) -> float:
        return math.nan if stamp is None else stamp * self._base

    def _send(self, packet: Packet[VideoStream] | None) -> None:
        """Decode a packet, or the last frames, and hold what comes."""
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError:
            self._damage(self._newest)
            if not self._one_to_one:
                self._lose(self._newest)
            return
        for frame in frames:
            origin = frame.opaque if isinstance(frame.opaque, _Origin) else self._newest
            self._awaited.pop(origin.order, None)
            self._fields = frame.interlaced_frame
            if frame.is_corrupt:
                self._damage(origin)
            self._held.append((origin, frame))
            if frame.pts is not None:
                heapq.heappush(self._times, self._seconds(frame.pts))

    def _is_due(self, order: int) -> bool:
        oldest = next(iter(self._awaited), order)
        return oldest >= order or len(self._held) > _MOST_HELD

    def _release(self) -> Iterator[Decoded]:
        """Yield the frame that was held longest, if it is whole, and count it."""
        origin, frame = self._held.popleft()
        # The earliest: some files, such as AVI, stamp frames in the order of decoding.
        time = math.nan if frame.pts is None else heapq.heappop(self._times)
        self._give_up(origin.order, time)
        self._clock.start([time, *self._lost])
        self._count_lost(time)
        seconds = self._clock.tell(time)
        number = self.number
        self.number += 1
        if self._is_whole(origin):
            yield Decoded(number, seconds, frame)
        else:
            self.damaged += 1

    def _is_whole(self, origin: _Origin) -> bool:
        bad, group, order = self._first_bad, origin.group, origin.order
        if bad.get((group, False), math.inf) <= order:
            return False
        return not origin.leads or not (
            bad.get((group, True), math.inf) <= order or (group - 1, False) in bad
        )

    def _give_up(self, order: float, time: float) -> None:
        """Wait no longer for what is decoded or shown before a frame that is out."""
        for late in [one for one in self._awaited.values() if one.order < order or one.time < time]:
            # What precedes the first key frame was cut off from what it is built on.
            if self._one_to_one and late.group > late.leads:
                self._damage(late)
                self._lose(late)
            else:
                del self._awaited[late.order]

    def _lose(self, origin: _Origin) -> None:
        self._awaited.pop(origin.order, None)
        heapq.heappush(self._lost, -math.inf if math.isnan(origin.time) else origin.time)

    def _count_lost(self, before: float) -> None:
        while self._lost and not self._lost[0] >= before:
            heapq.heappop(self._lost)
            self.number += 1
            self.damaged += 1

    def _damage(self, origin: _Origin) -> None:
        if not self._careful:
            raise _DamagedError
        key = origin.group, origin.leads
        self._first_bad[key] = min(origin.order, self._first_bad.get(key, origin.order))
