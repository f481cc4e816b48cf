"""Pictures at their own resolution, which lie beside a report for its viewer to open."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from itertools import count
from threading import Lock
from urllib.parse import quote

from ..pictures.colours import Picture, heat, resized, whole_map
from ..pictures.drawing import fitted
from ..pictures.encode import as_jpeg, as_webp
from ..types import Floats
from .folder import BY_NAME, CLOSEUPS, ResultFolder

_MOST_BYTES = 1 << 30
_MOST_PIXELS = 40_000_000
_MOST_SIDE = 16_384
"""What browsers show of a picture, without trouble."""
_MAP_SIDE = 2048
"""Maps are smooth: more pixels would show no more."""
_SUFFIXES = {"photo": "jpg", "heat": "webp", "map": "webp"}


class Closeups:
    """Writes pictures beside a report, of the images that score highest; from any thread.

    Parameters
    ----------
    out : ResultFolder
    most : int
        Bytes that all files may take together; those of the lowest scores go first.
    """

    def __init__(self, out: ResultFolder, most: int = _MOST_BYTES) -> None:
        self._out = out
        self._most = most
        self._lock = Lock()
        self._numbers = count()
        # Score, number, bytes and name. Of equal scores the later image, whose number is less,
        # goes first.
        self._kept: list[tuple[float, int, int, str]] = []
        self._bytes = 0

    @property
    def kept(self) -> set[str]:
        """Names of the images whose files are there."""
        return {name for _, _, _, name in self._kept}

    def add(
        self, score: float, name: str, image: Picture, values: Floats, threshold: float | None
    ) -> bool:
        """Write an image's files, and remove those of lower scores if all are too large.

        Parameters
        ----------
        score : float
        name : str
            What the files are called, without suffix.
        image : uint8 [H, W, 3]
        values : float32 [H, W]
            Its map.
        threshold : float or None

        Returns
        -------
        bool
            Whether files can be called so.
        """
        size = 0
        try:
            for kind, data in _encoded(image, values, threshold):
                self._out.put(_path(kind, name), data)
                size += len(data)
        except OSError as error:
            if error.errno not in BY_NAME:
                raise
            return False
        with self._lock:
            heapq.heappush(self._kept, (score, -next(self._numbers), size, name))
            self._bytes += size
            while self._bytes > self._most:
                self._drop()
        return True

    def drop_below(self, score: float) -> None:
        """Remove the files of images of lower scores."""
        with self._lock:
            while self._kept and self._kept[0][0] < score:
                self._drop()

    def _drop(self) -> None:
        _, _, size, name = heapq.heappop(self._kept)
        self._bytes -= size
        for kind in _SUFFIXES:
            self._out.discard(_path(kind, name))


def addresses(name: str) -> dict[str, str]:
    """Return where an image's `photo`, `heat` and `map` lie, relative to the report."""
    return {kind: quote(os.fsencode(_path(kind, name))) for kind in _SUFFIXES}


def _path(kind: str, name: str) -> str:
    return f"{CLOSEUPS}/{kind}/{name}.{_SUFFIXES[kind]}"


def _encoded(
    image: Picture, values: Floats, threshold: float | None
) -> Iterator[tuple[str, bytes]]:
    small = map_at_most(values, _MAP_SIDE)
    yield "photo", as_jpeg(bounded(image), 90)
    yield "heat", as_webp(heat(small, threshold))
    yield "map", as_webp(whole_map(small, threshold))


def bounded(image: Picture) -> Picture:
    """Return an image, made smaller if it has more pixels than browsers show."""
    height, width = image.shape[:2]
    scale = min((_MOST_PIXELS / (height * width)) ** 0.5, _MOST_SIDE / max(height, width))
    return image if scale >= 1 else fitted(image, int(scale * max(height, width)))


def map_at_most(values: Floats, side: int) -> Floats:
    """Return a map with so many pixels a side at most."""
    scale = side / max(values.shape)
    if scale >= 1:
        return values
    height, width = (max(1, round(scale * length)) for length in values.shape)
    return resized(values, (width, height))
