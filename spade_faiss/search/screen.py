"""What screens have in common: a gallery, cut into groups of rows, and parts of its searches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..types import Ids
from .pairs import gamma
from .threads import side_by_side

LARGEST_NORM = 2.0**60
"""From this norm on, squares may leave the range of float32."""
TINY = 2.0**-100
"""More than what underflow can take from a score."""
NOTHING = -(2.0**120)
"""The bound of a row that is not there."""
LOWERED = 1 << 22
"""Bytes of gallery that are rounded to low precision at a time: with fewer, threads wait for one
another between the steps."""
_PREPARED = 8 << 20
"""Bytes of gallery in low precision at a time."""
FEW = 800
"""Queries of a part whose products are in oneDNN's own order, for much else is to stay in cache."""
TOGETHER = 16
"""Groups of which the largest bound is looked at before each one's."""
_CENTRE = 16, 256
"""Images, and rows of them in all, whose mean is the common centre."""


@dataclass(frozen=True)
class Part:
    """Queries that share their training images, and what a screen finds for them.

    Attributes
    ----------
    queries : float32 [Q, C]
    nearest : int
        The training image that serves to estimate the best score.
    images : int64 [K], ascending
    lowered : Tensor
        The queries in low precision, as the screen wants them.
    terms : float32 [4]
        What else the screen wants to know of them.
    half, offset : float64 [Q]
        |x|²/2 and o.
    bounds : [K * groups and some more, Q], the bits of the largest bound of each group
        What is more is less than any bound, and makes a multiple of `TOGETHER`.
    """

    queries: Tensor
    nearest: int
    images: Ids
    lowered: Tensor
    terms: Tensor
    half: Tensor
    offset: Tensor
    bounds: Tensor


class Screen(ABC):
    """A gallery of which a product of low precision bounds the scores from above.

    Parameters
    ----------
    patches : float32 or float16 tensor [rows, C]
        Row `i * per_image + j` is patch j of image i; the last image may have fewer.
    per_image : int
    group : int
        Rows of which only the largest bound is kept.
    low : torch.bfloat16 or torch.float32
        What bounds are written as.
    row_bytes : int
        What a row takes in low precision.
    keep : int
        Bytes of prepared rows that may be kept from one search to the next.
    images : int64 [n], optional
        Some images that the common centre is to be that of, instead of all.
    """

    across = False
    """Whether a query's bounds lie together, and not a group's."""
    most = 4096
    """The most queries of a part."""
    step = 1
    """From one row of a group to the next."""

    def __init__(
        self,
        patches: Tensor,
        per_image: int,
        group: int,
        low: torch.dtype,
        row_bytes: int,
        keep: int,
        images: Ids | None,
    ) -> None:
        self.patches = patches
        self.per_image = per_image
        self.channels = patches.shape[1]
        self.low = low
        self.bits = torch.int16 if low == torch.bfloat16 else torch.int32
        self.group = group
        self.groups = -(-per_image // group)
        self.gamma = gamma(self.channels)
        self.images = -(-len(patches) // per_image)
        # Few rows suffice, of images that are read anyway.
        if images is None:
            images = np.arange(self.images)
        some = images[:: -(-len(images) // _CENTRE[0])]
        step = -(-per_image // (_CENTRE[1] // len(some)))
        rows = torch.cat([patches[i * per_image : (i + 1) * per_image : step] for i in some])
        [self.centre] = side_by_side(lambda rows: rows.float().mean(0), [rows])
        self._short = -len(patches) % per_image
        self._tile = max(1, _PREPARED // (self.groups * group * row_bytes))
        self._ready = np.zeros(self.images, bool)
        self._kept = self._room(self.images) if len(patches) * row_bytes <= keep else None

    def order(self, queries: Tensor) -> Tensor | None:
        """Return an order of queries that makes better parts, if one does."""
        return None

    def part(self, queries: Tensor, images: Ids) -> Part:
        """Return room for what is to be computed of some queries."""
        n, total = len(queries), len(images) * self.groups
        room = total + -total % TOGETHER
        bounds = (
            torch.empty(n, room, dtype=self.bits).T
            if self.across
            else torch.empty(room, n, dtype=self.bits)
        )
        bounds[total:] = torch.iinfo(self.bits).min
        return Part(
            queries,
            int(images[0]),
            np.sort(images),
            self._lowered(n),
            torch.empty(4),
            torch.empty(n, dtype=torch.float64),
            torch.empty(n, dtype=torch.float64),
            bounds,
        )

    @abstractmethod
    def _lowered(self, queries: int) -> Tensor:
        """Return room for queries in low precision."""

    @abstractmethod
    def describe(self, one: Part, centred: Tensor, norm: Tensor, known: Tensor) -> None:
        """Write queries, less the centre, in low precision, and the offset.

        `norm` is theirs, and `known`, [Q], is minus a score that each is known to reach.
        """

    def prepared(self, images: Ids) -> tuple[Any, Ids]:
        """Return ascending images' rows in low precision, and the images' places among these.

        Of rows that are kept, all are returned.
        """
        if self._kept is None:
            places, out = np.arange(len(images)), self._room(len(images))
        else:
            places, out = images, self._kept
        missing = ~self._ready[images]
        if missing.any():
            new = images[missing]
            self._prepare(out, new, places[missing])
            self._ready[new] = self._kept is not None
        return out, places

    @abstractmethod
    def _room(self, images: int) -> Any:
        """Return room for images' rows in low precision."""

    @abstractmethod
    def _prepare(self, out: Any, images: Ids, places: Ids) -> None:
        """Write ascending images' rows in low precision to their places."""

    def tiles(self, images: Ids) -> list[Ids]:
        """Cut ascending images into tiles that are to be prepared at a time."""
        if self._kept is not None:
            return [images]
        return [images[at : at + self._tile] for at in range(0, len(images), self._tile)]

    @abstractmethod
    def bound(self, one: Part, begin: int, prepared: Any, places: Ids) -> None:
        """Find the bounds of a part's images from its `begin`th on."""

    def ends(self, images: Ids) -> Ids:
        """Return the row after each image's last."""
        return np.minimum((images + 1) * self.per_image, len(self.patches))

    def first_rows(self, images: Ids, groups: Ids) -> Ids:
        """Return the first row of groups of images; the next ones come in `step`s."""
        inside = groups * self.group if self.step == 1 else groups
        return images * self.per_image + inside

    def parts(self, images: Ids) -> list[slice]:
        """Cut ascending images into a few at a time; one that is not whole comes alone."""
        step = max(1, LOWERED // (4 * self.channels * self.per_image))
        starts = {*range(0, len(images), step)}
        if len(images) and self.filled(images):
            starts.add(len(images) - 1)
        return [slice(*ends) for ends in pairwise([*sorted(starts), len(images)])]

    def rows_of(self, images: Ids) -> Tensor:
        """Return the rows of a part of the images, [n, C], and no more than there are."""
        return self.rows(images)[: len(images) * self.per_image - self.filled(images)]

    def rows(self, images: Ids) -> Tensor:
        """Return ascending images' rows, where they lie if these follow one another.

        An image that is not whole is filled up.
        """
        first, last = int(images[0]), int(images[-1])
        rows = self.patches[first * self.per_image : (last + 1) * self.per_image]
        if last - first > len(images) - 1:
            rows = rows.view(-1, self.per_image, self.channels)[torch.from_numpy(images - first)]
            return rows.view(-1, self.channels)
        more = len(images) * self.per_image - len(rows)
        return torch.cat([rows, rows[-1:].expand(more, -1)]) if more else rows

    def filled(self, images: Ids) -> int:
        """Return how many rows of ascending images' last one only fill it up."""
        return self._short if images[-1] == self.images - 1 else 0


def group_size(per_image: int, channels: int, sizes: Sequence[int] | None = None) -> int:
    """Return the rows of a group: what saves bounds where channels are few costs rescoring."""
    wished = 32 if channels < 64 else 16 if channels < 192 else 8
    sizes = sizes or range(wished * 3 // 4, wished * 5 // 4 + 1)
    return min(sizes, key=lambda size: (-per_image % size, abs(size - wished)))


def must_be_small(norm: Tensor) -> None:
    """Raise OverflowError if squares of norms may leave the range of float32, or are NaN."""
    if not bool(norm.max() < LARGEST_NORM):
        raise OverflowError
