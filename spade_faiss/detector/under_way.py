"""Work on a GPU that is under way: begun, recorded, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from .maps import ImageFound


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
    complete : bool []
        Whether features are numbers, and the searches had room for all that they found.
    """

    near: Tensor
    images: Tensor
    distances: tuple[Tensor, ...]
    matches: tuple[Tensor, ...]
    on_input: Tensor
    complete: Tensor

    def to_host(self) -> Made:
        """Return a copy that will be on the host."""
        return Made(
            _to_host(self.near),
            _to_host(self.images),
            tuple(map(_to_host, self.distances)),
            tuple(map(_to_host, self.matches)),
            _to_host(self.on_input),
            _to_host(self.complete),
        )


Work = Callable[[Tensor], Made]
"""From pixels on a GPU, uint8 [b, h, w, 3], to what is found of them, there."""


class Begun:
    """Work on some images that is under way.

    Parameters
    ----------
    made : Made
    placed : sequence of float32 [.., H, W], on the GPU
        The maps on the images' own grids: all of them, or one by one where their sizes differ.
    """

    def __init__(self, made: Made, placed: Sequence[Tensor]) -> None:
        self._made, self._placed = made.to_host(), [_to_host(one) for one in placed]
        self._done: torch.cuda.Event | None = None
        if made.near.is_cuda:
            self._done = torch.cuda.Event()
            self._done.record()

    def found(self) -> list[ImageFound] | None:
        """Wait, and return what is found of each image; None if it is not complete."""
        if self._done is not None:
            self._done.synchronize()
        made, placed = self._made, self._placed
        if not made.complete:
            return None
        scores = made.near.mean(1).tolist()
        return [
            ImageFound(
                scores[i],
                _own(made.images[i]),
                tuple(_own(level[i]) for level in made.distances),
                tuple(_own(level[i]) for level in made.matches),
                _own(made.on_input[i]),
                _own(placed[0][i] if len(placed) == 1 else placed[i][0]),
            )
            for i in range(len(scores))
        ]


class Recording:
    """Work that was recorded, to be started by one call: a CUDA graph.

    Its caller holds `search.level.ON_A_GPU`: of a process one thread may record, and no other may
    then have the GPU waited for.

    Parameters
    ----------
    work : callable
    pixels : uint8 tensor
        Some of those that it is given, of which a copy has the place of all that follow.
    """

    def __init__(self, work: Work, pixels: Tensor) -> None:
        device, now = pixels.device, torch.cuda.current_stream(pixels.device)
        if device not in _STREAMS:
            _STREAMS[device] = torch.cuda.Stream(device)
        stream = _STREAMS[device]
        self._pixels = pixels.clone()
        stream.wait_stream(now)
        with torch.cuda.stream(stream):  # so that this thread has all that is made but once
            work(self._pixels)
        now.wait_stream(stream)
        self._graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        try:
            with torch.cuda.graph(
                self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
            ):
                self._made = work(self._pixels)
        except BaseException:
            _clean_up(self._graph, device, pool)
            raise
        finally:
            torch.cuda.set_stream(now)  # which a failure leaves as it was while recording

    def __call__(self, pixels: Tensor) -> Made:
        """Start the work on other pixels, on the host; what it makes takes the last one's place."""
        self._pixels.copy_(pixels, non_blocking=True)
        self._graph.replay()
        return self._made


def _clean_up(graph: torch.cuda.CUDAGraph, device: torch.device, pool: tuple[int, int]) -> None:
    """Undo what a recording that failed leaves: memory set aside, and random numbers held back."""
    _FAILED.append(graph)
    with suppress(RuntimeError):
        graph.reset()  # which gives its memory back, if the recording was ended
    with suppress(RuntimeError):  # else torch before 2.12 leaves the pool open
        torch._C._cuda_endAllocateToPool(device.index, pool)
        torch._C._cuda_releasePool(device.index, pool)
    with suppress(RuntimeError, AttributeError):
        generator = torch.cuda.default_generators[device.index]
        generator.graphsafe_set_state(generator.clone_state())


_STREAMS: dict[torch.device, torch.cuda.Stream] = {}
"""On which work is recorded; torch's own is that of the first device alone."""
_FAILED: list[torch.cuda.CUDAGraph] = []
"""Graphs that could not be recorded: torch before 2.12 may still ask them."""


def _to_host(values: Tensor) -> Tensor:
    if not values.is_cuda:
        return values
    there = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return there.copy_(values, non_blocking=True)


def _own(values: Tensor) -> npt.NDArray[Any]:
    """Return a copy: what it is of is memory that a GPU writes to."""
    return values.numpy().copy()
