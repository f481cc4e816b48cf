"""A screen in bfloat16, or in float32 where that is emulated: upper bounds by one product.

Rounded to bfloat16 a query x and a row y become x̂ and ŷ, and

    x·y = x̂·ŷ + (x - x̂)·y + x̂·(y - ŷ)  ≤  x̂·ŷ + |x - x̂||y| + |x̂||y - ŷ|.

The right-hand side, and all else that rounding can add, is one inner product of longer vectors:

    query         x̂   |x - x̂|   |x̂|              1      1            o
    gallery row   ŷ   |y|        |y - ŷ| + γ|y|   hi     lo + γ|y|²/2  1

with hi + lo = -|y|²/2, and each entry rounded upwards. So a matrix product in bfloat16 yields upper
bounds of s + o. Each query has an offset o of its own, so that the bounds that matter lie near
zero, where rounding the product to bfloat16 takes little. What rounding takes from a row is
measured; from one that is prepared for one search only, where this would be half of the work, it
is 2⁻⁸|y| at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from ..types import Ids
from .screen import FEW, LOWERED, NOTHING, TINY, Part, Screen, group_size, must_be_small
from .threads import side_by_side

_UNIT = {torch.bfloat16: 2.0**-8, torch.float32: 0.0}
"""The largest part of a number that is rounded away."""
_PRODUCT = {torch.bfloat16: 3 << 20, torch.float32: 1 << 20}
"""Bytes of the product at a time: it is to stay in cache."""
_ALIGNED = 32
"""Columns of the product come in so many: AMX takes up to twice as long for one more or less."""
_PACKED, _WORTH = 128, 1 << 28
"""Columns, and multiplications, from which on queries are brought into oneDNN's own order once, and
not in each product."""
_GATHERED = 2 << 20
"""Bytes of prepared rows that are gathered at a time where images do not follow one another."""


class FloatScreen(Screen):
    """A gallery whose rows become columns of the screen's product.

    Parameters
    ----------
    patches, per_image, keep, images
        As `Screen` takes them.
    low : torch.bfloat16 or torch.float32
        What the screen computes in. The result does not depend on it.
    once : bool
        Whether it is for one search only.
    """

    def __init__(
        self,
        patches: Tensor,
        per_image: int,
        low: torch.dtype,
        keep: int = 0,
        images: Ids | None = None,
        once: bool = False,
    ) -> None:
        channels = patches.shape[1]
        self.width = _width(channels)
        self.packs = low == torch.bfloat16 and self.width >= _PACKED and _can_pack()
        if self.packs:
            self.most = FEW
        super().__init__(
            patches,
            per_image,
            group_size(per_image, channels),
            low,
            float_bytes(channels, low),
            keep,
            images,
        )
        self.measures = self._kept is not None and not once

    def up(self, values: Tensor) -> Tensor:
        """Return values that are no less once they are rounded to the screen's type."""
        unit = 2.0**-7 if self.low == torch.bfloat16 else 2.0**-22
        return values + values.abs() * unit

    def lowered(self, centred: Tensor, low: Tensor, back: Tensor, rounding: Tensor) -> None:
        """Write rows in low precision to [rows, C], and the norms of what is rounded away, [rows].

        That is left in place of `centred`. `back` is as large, to work in.
        """
        low.copy_(centred)
        if self.low == torch.float32:
            rounding.zero_()
        else:
            back.copy_(low)  # of two types a subtraction would take twice as long
            torch.linalg.vector_norm(centred.sub_(back), dim=1, out=rounding)

    def _lowered(self, queries: int) -> Tensor:
        """Return room for the queries' columns, [width, Q], and some more that are zero."""
        more = -queries % _ALIGNED
        room = torch.empty(queries + more, self.width, dtype=self.low)
        room[queries:] = 0
        return room.T

    def describe(self, one: Part, centred: Tensor, norm: Tensor, known: Tensor) -> None:
        """Write the columns of some queries, each with its own offset."""
        low, c = one.lowered.T[: len(centred)], self.channels
        rounding = torch.empty(len(centred))
        self.lowered(centred, low[:, :c], torch.empty_like(centred), rounding)
        low[:, c:] = 0
        low[:, c] = self.up(rounding)
        low[:, c + 1] = self.up(norm + rounding)
        low[:, c + 2 : c + 4] = 1
        low[:, c + 4] = self.up(known + TINY)
        one.offset.copy_(low[:, c + 4])

    def _room(self, images: int) -> Tensor:
        """Return room for rows, [n, groups * group, width]."""
        return torch.empty(images, self.groups * self.group, self.width, dtype=self.low)

    def _prepare(self, out: Tensor, images: Ids, places: Ids) -> None:
        """Round rows by all threads, and then write what bounds them, by one."""
        sizes = torch.empty(2, len(images), self.per_image)
        threads = torch.get_num_threads()
        side_by_side(
            partial(self._lower, out),
            np.array_split(images, threads),
            np.array_split(places, threads),
            torch.tensor_split(sizes, threads, 1),
        )
        side_by_side(partial(self._complete, out), [images], [places], [sizes])

    def bound(self, one: Part, begin: int, prepared: Tensor, places: Ids) -> None:
        """Multiply a few groups at a time, in whose cache their largest are found."""
        best = one.bounds[begin * self.groups : (begin + len(places)) * self.groups]
        group, n = self.group, one.lowered.shape[1]
        queries = len(one.queries)
        step = min(len(best), max(1, _PRODUCT[self.low] // (self.low.itemsize * n * group)))
        much = self.packs and len(best) * group * one.lowered.numel() > _WORTH
        multiply = (_packed_product if much else _product)(one.lowered, step * group)
        at = 0
        for rows in _in_turn(prepared, places):
            here = best[at : at + len(rows) // group]
            at += len(here)
            for part, largest in zip(
                torch.split(rows, step * group), torch.split(here, step), strict=True
            ):
                bits = multiply(part).view(best.dtype).view(-1, group, n)
                torch.amax(bits[:, :, :queries], 1, out=largest)

    def _lower(self, out: Tensor, images: Ids, places: Ids, sizes: Tensor) -> None:
        """Round ascending images' rows, with no small operation between the large ones."""
        c = self.channels
        step = max(1, LOWERED // (4 * c))
        room = torch.empty(2, min(step, len(images) * self.per_image), c)
        for some in self.parts(images):
            rows, where = self.rows(images[some]), _index(places[some])
            direct = self.per_image == out.shape[1] and isinstance(where, slice)
            low = (
                out[where].view(-1, self.width)[:, :c]
                if direct
                else (torch.empty(len(rows), c, dtype=self.low))
            )
            for part, into, measures in zip(
                torch.split(rows, step),
                torch.split(low, step),
                torch.split(sizes[:, some].flatten(1), step, 1),
                strict=True,
            ):
                centred, back = room[:, : len(part)]
                torch.sub(part, self.centre, out=centred)
                torch.linalg.vector_norm(centred, dim=1, out=measures[0])
                if self.measures:
                    self.lowered(centred, into, back, measures[1])
                else:
                    into.copy_(centred)
            if not direct:
                out[where, : self.per_image, :c] = low.view(-1, self.per_image, c)

    def _complete(self, out: Tensor, images: Ids, places: Ids, sizes: Tensor) -> None:
        """Write what bounds rows beside them, and fill up each image to whole groups."""
        norm, rounding = sizes
        must_be_small(norm)
        if not self.measures:
            torch.mul(norm, _UNIT[self.low], out=rounding).add_(TINY)
        half = norm.square() / 2
        high = (-half).to(self.low)
        c, where = self.channels, _index(places)
        more = torch.zeros(len(images), out.shape[1], self.width - c, dtype=self.low)
        bound = more[:, : self.per_image]
        bound[:, :, 0] = self.up(norm)
        bound[:, :, 1] = self.up(rounding + self.gamma * norm)
        bound[:, :, 2] = high
        bound[:, :, 3] = self.up(-half - high + self.gamma * half)
        bound[:, :, 4] = 1
        more[:, self.per_image :, 2] = NOTHING
        more[-1, self.per_image - self.filled(images) : self.per_image, 2] = NOTHING
        out[where, :, c:] = more
        out[where, self.per_image :, :c] = 0


def _product(columns: Tensor, most: int) -> Callable[[Tensor], Tensor]:
    """Return what multiplies rows, no more than `most`, by columns."""
    room = torch.empty(most, columns.shape[1], dtype=columns.dtype)
    return lambda rows: torch.mm(rows, columns, out=room[: len(rows)])


def _packed_product(columns: Tensor, most: int) -> Callable[[Tensor], Tensor]:
    """Return the same of columns in oneDNN's own order, with AMX up to half as fast again."""
    ops = torch.ops.mkldnn
    packed = ops._reorder_linear_weight(columns.T, most)
    return lambda rows: ops._linear_pointwise(rows, packed, None, "none", [], "")


@cache
def _can_pack() -> bool:
    """Say whether this torch has the operations, and they do what is asked of them."""
    rows, columns = torch.arange(64.0).view(4, 16).bfloat16(), torch.eye(32, 16).bfloat16().T
    try:
        return torch.equal(_packed_product(columns, 4)(rows), _product(columns, 4)(rows))
    except (AttributeError, RuntimeError):
        return False


def float_bytes(channels: int, low: torch.dtype) -> int:
    """Return what a row takes."""
    return _width(channels) * low.itemsize


def _width(channels: int) -> int:
    return -(-(channels + 5) // 16) * 16


def _in_turn(prepared: Tensor, images: Ids) -> Iterator[Tensor]:
    """Yield ascending images' rows: all of them where they lie, or a few at a time."""
    all_ = _index(images)
    if isinstance(all_, slice):
        yield prepared[all_].flatten(0, 1)
        return
    step = max(1, _GATHERED // prepared[0].nbytes)
    room = prepared.new_empty(step, *prepared.shape[1:])  # anew each time, 5 % are lost
    for at in range(0, len(images), step):
        some = _index(images[at : at + step])
        if isinstance(some, slice):
            yield prepared[some].flatten(0, 1)
        else:
            yield torch.index_select(prepared, 0, some, out=room[: len(some)]).flatten(0, 1)


def _index(images: Ids) -> slice | Tensor:
    """Return an index of ascending places that copies nothing if they follow one another."""
    first, last = int(images[0]), int(images[-1])
    if last - first == len(images) - 1:
        return slice(first, last + 1)
    return torch.from_numpy(images)
