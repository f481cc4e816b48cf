"""Work on a GPU that is under way: begun, recorded, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor

from .maps import ImageFound

if TYPE_CHECKING:
    from ..search.cuda import FusedSearch


@dataclass(frozen=True)
class Made:
    """What is found of b images, on the GPU.

    Attributes
    ----------
    near : float64 [b, K]
        Squared distances of the nearest descriptors, ascending.
    images : int64 [b, K]
    distances : tuple of float32 [b, h, w]
        Per level.
    matches : tuple of int64 [b, h, w]
    on_input : float32 [b, H, W]
    placed : tuple of float32 [.., H, W]
        The maps on the images' own grids: all of them, or one by one where their sizes differ.
    counts : int32 [..]
        Whether features are finite, then the counts of each level's search.
    """

    near: Tensor
    images: Tensor
    distances: tuple[Tensor, ...]
    matches: tuple[Tensor, ...]
    on_input: Tensor
    placed: tuple[Tensor, ...]
    counts: Tensor

    def to_host(self) -> Made:
        """Return a copy that will be on the host."""
        return Made(
            _to_host(self.near),
            _to_host(self.images),
            tuple(map(_to_host, self.distances)),
            tuple(map(_to_host, self.matches)),
            _to_host(self.on_input),
            tuple(map(_to_host, self.placed)),
            _to_host(self.counts),
        )


Work = Callable[[Tensor], "tuple[Made, list[FusedSearch]]"]
"""From pixels, uint8 [b, h, w, 3], to what is found of them, and the searches for it."""


class Begun:
    """Work on some images that is under way."""

    def __init__(self, made: Made, searches: Sequence[FusedSearch]) -> None:
        self._made, self._searches = made.to_host(), searches
        self._done: torch.cuda.Event | None = None
        if made.near.is_cuda:
            self._done = torch.cuda.Event()
            self._done.record()

    def found(self) -> list[ImageFound] | None:
        """Wait, and return what is found of each image.

        None if memory for intermediate results did not suffice, or features are no numbers: then
        the stages one by one find it, or say what is wrong.
        """
        if self._done is not None:
            self._done.synchronize()
        made, one_by_one = self._made, len(self._made.placed) > 1
        if not self._complete(made.counts.tolist()):
            return None
        scores = made.near.mean(1).tolist()
        return [
            ImageFound(
                scores[i],
                _own(made.images[i]),
                tuple(_own(level[i]) for level in made.distances),
                tuple(_own(level[i]) for level in made.matches),
                _own(made.on_input[i]),
                _own(made.placed[i][0] if one_by_one else made.placed[0][i]),
            )
            for i in range(len(scores))
        ]

    def _complete(self, counts: list[int]) -> bool:
        finite, at = counts[0], 1
        for search in self._searches:
            own = counts[at : at + len(search.counts)]
            at += len(own)
            try:
                if search.incomplete(own):
                    return False
            except OverflowError:
                return False
        return bool(finite)


class Recording:
    """Work that was recorded, to be started by one call.

    Parameters
    ----------
    work : callable
        Given pixels on the device. It was done before, so that nothing is left to be tuned.
    pixels : uint8 tensor
        Some of them, of which a copy has the place of all that follow.
    """

    def __init__(self, work: Work, pixels: Tensor) -> None:
        self._work = work  # which holds what the graph reads
        self._pixels = pixels.clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._made = work(self._pixels)

    def __call__(self, pixels: Tensor) -> tuple[Made, list[FusedSearch]]:
        """Start the work on other pixels, on the host; what it makes is that of the last call."""
        self._pixels.copy_(pixels, non_blocking=True)
        self._graph.replay()
        return self._made


def _to_host(values: Tensor) -> Tensor:
    if not values.is_cuda:
        return values
    there = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return there.copy_(values, non_blocking=True)


def _own(values: Tensor) -> npt.NDArray[Any]:
    """Return a copy: what it is of is memory that a GPU writes to."""
    return values.numpy().copy()
