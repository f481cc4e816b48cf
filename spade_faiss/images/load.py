"""Decode and frame images ahead of whoever uses them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .._support.warning import Notes
from ..errors import SpadeError
from ..types import Floats
from .framing import Framing
from .given import announced_size, as_image
from .motion import motion_of
from .source import Frame, OnError, Source, name_of, report_problem

Prepared = TypeVar("Prepared")

_MOST_THREADS = 16
"""As many as keep up with a GPU."""
PIXELS_AHEAD = 1 << 28
"""How many pixels may wait for the caller: 0.8 GB."""


@dataclass(frozen=True)
class Loaded:
    """One decoded image.

    Attributes
    ----------
    position : int
        Place in the caller's list.
    name : str
    image : uint8 [H, W, 3]
    wide : uint8 [h + 2 m, w + 2 m, 3]
        The image framed for the network, and the margin around it; nothing is painted over.
    motion : float32 [h / 8, w / 8, 4] or None
        Of what the network is shown, as `spade_faiss.images.motion.motion_of` gives it; None if it
        was not asked for, or there is no frame before the image.
    """

    position: int
    name: str
    image: npt.NDArray[np.uint8]
    wide: npt.NDArray[np.uint8]
    motion: Floats | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]


def load_images(
    sources: Iterable[Source],
    framing: Framing,
    on_error: OnError | None = None,
    workers: int | None = None,
    on_note: OnError | None = None,
    *,
    motion: bool = False,
    pixels_ahead: int = PIXELS_AHEAD,
    at_least: int = 0,
) -> Iterator[Loaded]:
    """Decode and frame images in worker threads, a few ahead of the caller, in order.

    Parameters
    ----------
    sources : iterable of Source
        Gone through once, a few ahead of the caller, so that a stream of any length may be
        passed.
    framing : Framing
    on_error : callable, optional
        Called with (name, why) for an image that cannot be used, which is then left out.
        Without it the first such image raises SpadeError.
    workers : int, optional
        Decoding threads; by default one a core, at most 16.
    on_note : callable, optional
        Called with (name, text) for what `read_image` notes of an image. By default it is said
        at the end, in one `ImageWarning` for all images that it is noted of.
    motion : bool
        Whether to see how places move, of images that have a frame before them.
    pixels_ahead : int
        Pixels that may wait for the caller, but for those of two images.
    at_least : int
        Images that are to be ahead of the caller, if `pixels_ahead` allows.
    """

    def framed(
        image: npt.NDArray[np.uint8], source: Source
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], Floats | None]:
        wide = framing.apply_with_margin(image)
        if not (motion and isinstance(source, Frame) and source.before):
            return image, wide, None
        before = framing.apply(as_image(source.before, lambda note: None))
        seconds = source.seconds - source.before.seconds
        shown = framing.inner(framing.painted(wide, image.shape[:2]))
        return image, wide, motion_of(before, shown, seconds)

    for position, name, (image, wide, moves) in _prepared(
        sources, framed, on_error, workers, on_note, pixels_ahead, at_least
    ):
        yield Loaded(position, name, image, wide, moves)


def decode_images(
    sources: Iterable[Source], on_error: OnError | None = None, workers: int | None = None
) -> Iterator[Frame]:
    """Decode images for several detectors: yield each by its name, with its place.

    Parameters as in `load_images`.
    """
    for position, name, image in _prepared(sources, lambda image, source: image, on_error, workers):
        yield Frame(name, image, position=position)


def _prepared(
    sources: Iterable[Source],
    prepare: Callable[[npt.NDArray[np.uint8], Source], Prepared],
    on_error: OnError | None,
    workers: int | None,
    on_note: OnError | None = None,
    pixels_ahead: int = PIXELS_AHEAD,
    at_least: int = 0,
) -> Iterator[tuple[int, str, Prepared]]:
    """Yield the place and name of each image and what is made of it, as `load_images` does."""
    workers = workers or min(_MOST_THREADS, os.cpu_count() or 1)
    notes = Notes()

    def work(source: Source) -> tuple[Prepared, int, list[str]]:
        said: list[str] = []
        image = as_image(source, said.append)
        return prepare(image, source), image.shape[0] * image.shape[1], said

    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[int, str, Future[tuple[Prepared, int, list[str]]]]] = deque()
        waiting = enumerate(sources)
        room, largest = 2, 1  # until it is known how large images are
        try:
            while True:
                for place, source in islice(waiting, max(0, room - len(ahead))):
                    if isinstance(source, Frame) and source.position is not None:
                        place = source.position
                    ahead.append((place, name_of(source, place), pool.submit(work, source)))
                if not ahead:
                    return
                position, name, future = ahead.popleft()
                try:
                    prepared, pixels, said = future.result()
                except SpadeError as error:
                    report_problem(on_error, name, str(error))
                    continue
                largest = max(largest, pixels)
                room = min(max(2 * workers + 1, at_least), max(2, pixels_ahead // largest))
                for text in said:
                    (on_note or notes.add)(name, text)
                yield position, name, prepared
        finally:
            for _, _, future in ahead:
                future.cancel()
            notes.issue()


def sizes_of(sources: Iterable[Source]) -> tuple[list[tuple[int, int]], Iterable[Source]]:
    """Return the heights and widths of images, as they are upright, and all the images.

    Of a list, those whose headers tell, without a pixel decoded; a list stays one. Of a stream,
    which is not held whole, that of the first image that can be decoded, if any.
    """
    if isinstance(sources, Sequence):
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return [size for size in pool.map(announced_size, sources) if size], sources
    stream = iter(sources)
    seen: list[Source] = []
    for source in stream:
        seen.append(source)
        try:
            return [as_image(source, lambda note: None).shape[:2]], chain(seen, stream)
        except SpadeError:
            continue
    return [], iter(seen)
