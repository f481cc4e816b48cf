"""Queries with the bounds of their scores, out of one pass on the tensor cores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from .device import multiprocessors
from .gallery import STRIDE, PreparedGallery
from .half import gamma, round_to_half
from .tiles import run_screen

_PAIRS_A_ROW = 8
"""For each of k nearest rows, of a query; room for more than there mostly are."""


@dataclass(frozen=True)
class Limits:
    """How much is kept at a time.

    Attributes
    ----------
    bound_bytes : int
        Bytes of upper bounds.
    pairs : int
        (query, group) pairs that are listed.
    """

    bound_bytes: int = 256 << 20
    pairs: int = 1 << 20


def parts_of(
    batch: int, n: int, groups: int, limits: Limits, k: int = 1
) -> Iterator[tuple[slice, slice]]:
    """Cut a batch into slices of items and of queries whose bounds, and pairs, have room.

    For the nearest row a query has about one pair, for k rows some times k.
    """
    pairs = limits.pairs if k == 1 else limits.pairs // (_PAIRS_A_ROW * k)
    fitting = min(limits.bound_bytes // 4 // groups, pairs)
    if fitting >= n:
        step = min(fitting // n, 65535)
        for at in range(0, batch, step):
            yield slice(at, min(at + step, batch)), slice(0, n)
        return
    step = max(fitting // 128, 1) * 128
    for item in range(batch):
        for at in range(0, n, step):
            yield slice(item, item + 1), slice(at, min(at + step, n))


class Workspace:
    """Memory that all parts of a search use in turn.

    Parameters
    ----------
    bounds : int
        Upper bounds of the largest part.
    pairs : int
        Pairs that are listed at a time.
    device : torch.device
    """

    def __init__(self, bounds: int, pairs: int, device: torch.device) -> None:
        self.upper = torch.empty(bounds, device=device)
        self.who = torch.empty(pairs, dtype=torch.int32, device=device)
        self.where = torch.empty_like(self.who)

    @property
    def pairs(self) -> int:
        """Pairs that are listed at a time."""
        return len(self.who)


@dataclass(frozen=True)
class ScreenedQueries:
    """Queries with their bounds; made by `screen_queries`.

    Attributes
    ----------
    queries : float32 [b, q, C]
    low : float16 [b * q, channels]
    stats : float32 [4, b * q], as `kernels.lower` leaves them
    images : int64 [b, K]
    upper : float32 [b, K * groups, q]
        What the best score of each group is at most.
    floor : float32 [b, q]
        What the best score of each query is at least.
    best : int64 [b, q]
        The nearest row so far, as `kernels.rescore` packs it.
    """

    queries: Tensor
    low: Tensor
    stats: Tensor
    images: Tensor
    upper: Tensor
    floor: Tensor
    best: Tensor


def screen_queries(
    queries: Tensor,
    gallery: PreparedGallery,
    images: Tensor,
    space: Workspace,
    best: Tensor,
    bad: Tensor,
) -> ScreenedQueries:
    """Bound the scores of queries with all groups of their images.

    Parameters
    ----------
    queries : float32 [b, q, C], contiguous
    gallery : PreparedGallery
    images : int64 [b, K]
    space : Workspace
        Its `upper` is written.
    best : int64 [b, q]
        Set to infinitely far.
    bad : int32 [1]
        Queries that are not finite, or too large, are added to it.
    """
    b, n, c = queries.shape
    low = torch.empty(b * n, gallery.channels, dtype=torch.float16, device=queries.device)
    floor = torch.empty(b, n, device=queries.device)
    stats = round_to_half(
        queries.view(b * n, c), gallery.centre, gallery.scale, low, (floor, best, bad)
    )
    k = images.shape[1]
    shape = (b, k * gallery.groups, n)
    upper = space.upper[: math.prod(shape)].view(shape)
    processors = multiprocessors(queries.device)

    def grid(tile: dict[str, Any]) -> tuple[int, int, int]:
        tiles = triton.cdiv(n, tile["QUERIES"])
        return tiles, b, _sections(tiles * b, k, processors)

    run_screen(
        grid,
        low,
        stats,
        gallery.rows,
        gallery.half,
        gallery.reach,
        gallery.slack,
        images,
        upper,
        floor,
        n,
        k,
        gallery.per_image,
        len(gallery.patches),
        gamma(c) / 2,
        CHANNELS=gallery.channels,
        STRIDE=STRIDE,
        FOLD=gallery.fold,
    )
    return ScreenedQueries(queries, low, stats, images, upper, floor, best)


@cache
def _sections(tiles: int, images: int, processors: int) -> int:
    """Return into how many sections to cut the images, so that all processors end together.

    Each has one program at a time; a program takes `images / sections` and, to begin, as long as
    for a tenth of an image.
    """

    def time(sections: int) -> float:
        return -(-tiles * sections // processors) * (-(-images // sections) + 0.1)

    return min(range(1, min(images, 65535) + 1), key=time)
