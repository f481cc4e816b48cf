"""The pairs of a query and a group of rows that a screen leaves, and their exact distances."""

from __future__ import annotations

from collections.abc import Iterator

import triton
from torch import Tensor

from .device import interpreted, multiprocessors
from .gallery import GROUP, STRIDE, PreparedGallery
from .half import gamma
from .kernels.collect import collect
from .kernels.rescore import rescore
from .screen import ScreenedQueries, Workspace

_QUERIES, _GROUPS = 128, 64
"""Pairs that one program of `collect` looks at."""


def windows(part: ScreenedQueries, pairs: int, *, careful: bool) -> Iterator[tuple[int, int]]:
    """Yield ranges of groups: all, or so few that all their pairs could be listed."""
    b, total, n = part.upper.shape
    step = max(1, pairs // (b * n)) if careful else total
    for first in range(0, total, step):
        yield first, min(first + step, total)


def collect_pairs(
    part: ScreenedQueries, floor: Tensor, space: Workspace, count: Tensor, first: int, last: int
) -> None:
    """List the pairs, of groups `first` to `last`, whose upper bound is not below the floor.

    Parameters
    ----------
    part : ScreenedQueries
    floor : float32 [b, q]
    space : Workspace
        Its `who` and `where` are written.
    count : int32 [1]
        How many pairs there are is added to it, also those that find no room.
    first, last : int
    """
    b, total, n = part.upper.shape
    collect[triton.cdiv(n, _QUERIES), b, triton.cdiv(last - first, _GROUPS)](
        part.upper,
        floor,
        space.who,
        space.where,
        count,
        n,
        total,
        first,
        last,
        space.pairs,
        QUERIES=_QUERIES,
        GROUPS=_GROUPS,
        num_warps=8,
    )


def rescore_pairs(
    part: ScreenedQueries,
    gallery: PreparedGallery,
    floor: Tensor,
    space: Workspace,
    count: Tensor,
    more: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Find the exact distances of the listed pairs' rows that may be among the nearest.

    Parameters
    ----------
    part : ScreenedQueries
        Its `best` is lowered, unless `more` than one row is sought.
    gallery : PreparedGallery
    floor : float32 [b, q]
    space : Workspace
    count : int32 [1]
        Pairs that are listed.
    more : tuple of float32 [b * q] and float32 [pairs, members], optional
        The k-th distance so far, and room for all distances; see `kernels.rescore`.
    """
    b, n, c = part.queries.shape
    near, found = more or (floor, floor)
    # Of one warp each, and so many that while some wait for memory others do not.
    programs = 3 if interpreted() else 48 * multiprocessors(part.queries.device)
    rescore[(programs,)](
        space.who,
        space.where,
        count,
        space.pairs,
        part.upper,
        floor,
        part.stats,
        part.queries,
        part.low,
        gallery.patches,
        gallery.rows,
        gallery.half,
        gallery.reach,
        gallery.slack,
        part.images,
        part.best,
        near,
        found,
        n,
        b * n,
        part.images.shape[1],
        gallery.per_image,
        len(gallery.patches),
        gallery.members,
        c,
        gamma(c) / 2,
        gallery.scale**2,
        CHANNELS=gallery.channels,
        STRIDE=STRIDE,
        FOLD=gallery.fold,
        CHUNK=GROUP,
        BLOCK=min(gallery.channels, 64),
        ONE=more is None,
        num_warps=1,
    )
