"""Turn the pictures that FFmpeg decodes into upright RGB."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.buffer import Buffer
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from .decode import Decoded

_EXACT = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
"""FFmpeg's fastest way is up to four grey levels off, and too dark by one."""


class ToRGB:
    """Converts the pictures of one video, as PyAV decodes them, to upright RGB."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._rotation: int | None = None
        self._matrix: npt.NDArray[np.int32] | None = None

    def __call__(self, picture: VideoFrame) -> npt.NDArray[np.uint8]:
        """Return a picture as RGB, uint8 [H, W, 3].

        The colours are those that its matrix and range say, to half a grey level: BT.601 and the
        limited range if it says nothing. It is turned and mirrored as its display matrix says.
        """
        rgb = self._reformatter.reformat(
            picture, format="rgb24", interpolation=_EXACT, dst_color_range=ColorRange.JPEG
        )
        image = cast(npt.NDArray[np.uint8], rgb.to_ndarray())
        # To look at its side data ties a picture to itself, and keeps its memory for long.
        if picture.rotation != self._rotation:
            self._rotation, self._matrix = picture.rotation, _display_matrix(picture)
        if self._matrix is not None:
            image = _upright(image, self._matrix)
        return np.ascontiguousarray(image)


def _display_matrix(picture: VideoFrame) -> npt.NDArray[np.int32] | None:
    data = cast(Mapping[str, Buffer], picture.side_data).get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(bytes(data), np.int32)


def _upright(image: npt.NDArray[np.uint8], matrix: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Turn and mirror an image by its display matrix, to the nearest right angle.

    The matrix sends (x, y) to (a·x + c·y, b·x + d·y): ISO/IEC 14496-12, "transformation matrix".
    """
    a, b, _, c, d = matrix[:5].astype(int)
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def deinterlaced(frames: Iterable[Decoded]) -> Iterator[Decoded]:
    """Yield frames, whole pictures made of those that are marked as two fields.

    One picture is made of each frame, at the time of its first field; the other field's lines
    are interpolated in space and time (FFmpeg's filter bwdif). Other frames pass unchanged.
    """
    fields: _Deinterlacer | None = None
    for decoded in frames:
        if fields and not fields.takes(decoded.picture):
            yield from fields.end()
            fields = None
        if fields is None and decoded.picture.interlaced_frame:
            fields = _Deinterlacer(decoded.picture)
        if fields:
            yield from fields.push(decoded)
        else:
            yield decoded
    if fields:
        yield from fields.end()


class _Deinterlacer:
    """FFmpeg's filter, for pictures of one size and format; it gives each after the next."""

    def __init__(self, picture: VideoFrame) -> None:
        self._kind = _kind(picture)
        self._waiting: deque[Decoded] = deque()
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=picture.width,
            height=picture.height,
            format=picture.format,
            time_base=Fraction(1, 1000),
        )
        bwdif = self._graph.add("bwdif", mode="send_frame", deint="interlaced")
        self._graph.link_nodes(source, bwdif, self._graph.add("buffersink")).configure()

    def takes(self, picture: VideoFrame) -> bool:
        return _kind(picture) == self._kind

    def push(self, decoded: Decoded) -> Iterator[Decoded]:
        self._waiting.append(decoded)
        return self._through(decoded.picture)

    def end(self) -> Iterator[Decoded]:
        return self._through(None)

    def _through(self, picture: VideoFrame | None) -> Iterator[Decoded]:
        self._graph.vpush(picture)
        while self._waiting:
            try:
                whole = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):  # not yet; or no more
                return
            yield replace(self._waiting.popleft(), picture=whole)


def _kind(picture: VideoFrame) -> tuple[int, int, str]:
    return picture.width, picture.height, picture.format.name
