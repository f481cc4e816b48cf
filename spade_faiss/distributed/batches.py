"""Images cut into batches that are done anywhere, and taken in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ..images import Frame, Framing, Source, name_of
from .crew import Crew
from .worker import Answer, Recipe, answer

if TYPE_CHECKING:
    from ..detector import Batch, Spade


def answers(
    crew: Crew, recipe: Recipe, sources: Iterable[Source], size: int, framing: Framing,
    of: Callable[[Spade, Batch], Iterable[Any]],
) -> Iterator[tuple[int, Answer]]:
    """Yield for each batch the place of the image after it and the answer, in order, each once.

    A batch has `size` images that can be decoded, as on one machine. Which these are is known
    only when the batch is answered: where an image failed, that batch and those after it are cut
    anew.
    """
    feed = _Feed(sources)
    ends: deque[int] = deque()
    start, cut, wanted = 0, 0, size
    with crew.stream(recipe) as stream:
        while True:
            while stream.has_room:
                some, last = feed.take(cut, wanted)
                if not some:
                    break
                stream.submit(
                    partial(answer, sources=some, start=cut, framing=framing, last=last, of=of),
                    f"{name_of(some[0], cut)} and the {len(some) - 1} images after it")
                cut, wanted = cut + len(some), size
                ends.append(cut)
            if not ends:
                return
            found: Answer = stream.take()
            end = ends.popleft()
            if found.filled:
                start = end
                feed.forget(end)
                yield end, found
            else:
                stream.drop()
                ends.clear()
                cut, wanted = start, size + len(found.problems)


class _Feed:
    """The images that are not done with yet, of a list or a stream."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._coming = iter(sources)
        self._first = 0
        self._held: deque[Source] = deque()

    def take(self, start: int, count: int) -> tuple[list[Source], bool]:
        """Return up to `count` images from place `start` on, and whether no more follow."""
        skip = start - self._first
        missing = skip + count + 1 - len(self._held)
        for source in islice(self._coming, max(missing, 0)):
            place = self._first + len(self._held)
            if isinstance(source, np.ndarray):
                source = Frame(name_of(source, place), source)
            self._held.append(source)
        return list(islice(self._held, skip, skip + count)), len(self._held) <= skip + count

    def forget(self, until: int) -> None:
        """Let go of the images before place `until`."""
        while self._first < until:
            self._held.popleft()
            self._first += 1
