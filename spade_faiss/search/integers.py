"""A screen in 8-bit integers: upper bounds by a product twice as fast as one in bfloat16.

Each row y has a scale t of its own and becomes ŷ = t j, with integers j of at most 127, or 64.
Queries x become x̂ = u i, with one scale u for a part of them; they are put in order of what they
need, so that few are served badly. As

    x·y = x̂·ŷ + (x - x̂)·y + x̂·(y - ŷ)  ≤  u t (i·j) + E|y| + X|y - ŷ|

with the part's largest E = |x - x̂| and X = |x̂|, what has to be added to the product of integers,
which is exact, depends on the row alone:

    s + o  ≤  u t (i·j) + [ o - |y|²/2 + E|y| + X|y - ŷ| + rounding ].

Both are turned first, so that no few channels hold the largest values, which make the scales.
oneDNN scales the product and adds the bracket, in float32, before it writes bfloat16. The rounding
is that of some ten operations, each on terms of at most X|y|, |y|²/2, o or E|y|: γ times these is
at least twice as much, and covers the subtraction of the centre as well. The offset o is that of
the part's query that needs the largest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..types import Ids
from .screen import FEW, NOTHING, TINY, Part, Screen, group_size, must_be_small
from .threads import side_by_side
from .timing import least_seconds

_LARGEST = 127
"""The largest of a query's integers."""
_ZERO = 128
"""What is added to a query's integers: oneDNN wants them unsigned."""
MOST_CHANNELS = 1 << 15
"""Up to which a sum of 32 bits overflows in no case."""
_SLOW = 4
"""Times as long that a product takes at the very least where its type is emulated."""


class _Packed(NamedTuple):
    """Images' rows: integers in oneDNN's own order, an image each, and [n, 4, groups * group].

    The four are the scale, and what E, X and 1 are to be multiplied with in the bracket.
    """

    integers: list[Tensor | None]
    terms: Tensor


class IntegerScreen(Screen):
    """A gallery whose rows become weights of a layer, and queries what it is applied to.

    Parameters
    ----------
    patches, per_image, keep, images
        As `Screen` takes them.
    """

    across = True
    most = FEW

    def __init__(
        self, patches: Tensor, per_image: int, keep: int = 0, images: Ids | None = None
    ) -> None:
        channels = patches.shape[1]
        self.largest = largest()
        super().__init__(
            patches,
            per_image,
            group_size(per_image, channels, (8, 16)),
            bounds_type(),
            integer_bytes(channels),
            keep,
            images,
        )
        self.step = self.groups  # rows that follow one another are then compared at once

    def order(self, queries: Tensor) -> Tensor | None:
        """Return the order of the largest deviations from the centre, which make the scale."""
        if len(queries) <= self.most:
            return None
        peaks = side_by_side(
            lambda some: _peaks(*_mixed(some - self.centre, torch.empty_like(some))),
            torch.tensor_split(queries, torch.get_num_threads()),
        )
        return torch.argsort(torch.cat(peaks))

    def _lowered(self, queries: int) -> Tensor:
        """Return room for the queries' integers, [Q, C]."""
        return torch.empty(queries, self.channels, dtype=torch.uint8)

    def describe(self, one: Part, centred: Tensor, norm: Tensor, known: Tensor) -> None:
        """Round queries to multiples of one scale; the terms are u, E, X and o."""
        centred, integers = _mixed(centred, torch.empty_like(centred))
        scale = _peaks(centred, integers).max().clamp(min=TINY) / _LARGEST
        torch.div(centred, scale, out=integers).round_()
        rounding = torch.linalg.vector_norm(centred.addcmul_(integers, scale, value=-1), dim=1)
        one.lowered.copy_(integers.add_(_ZERO))
        offset = known.max() + TINY
        one.terms[0] = scale
        one.terms[1] = (rounding + self.gamma * norm).max()
        one.terms[2] = (norm + rounding).max() * (1 + self.gamma)
        one.terms[3] = offset + 2 * self.gamma * offset.abs()
        one.offset.fill_(offset)

    def bound(self, one: Part, begin: int, prepared: _Packed, places: Ids) -> None:
        """Multiply image after image; of each halves' two bounds the larger stays, and so on."""
        scale = one.terms[0].item()
        rows = prepared.terms[torch.from_numpy(places)]
        bracket = one.terms[3] + one.terms[1] * rows[:, 1] + one.terms[2] * rows[:, 2] + rows[:, 3]
        bounds = one.bounds.T[:, begin * self.groups : (begin + len(places)) * self.groups]
        for at, place in enumerate(places.tolist()):
            integers = prepared.integers[place]
            assert integers is not None
            product = multiply(one.lowered, scale, integers, rows[at, 0], bracket[at], self.low)
            left = product.view(self.bits)
            while (half := left.shape[1] // 2) > self.groups:
                left = torch.maximum(left[:, :half], left[:, half:])
            torch.maximum(
                left[:, :half],
                left[:, half:],
                out=bounds[:, at * self.groups : (at + 1) * self.groups],
            )

    def _room(self, images: int) -> _Packed:
        return _Packed([None] * images, torch.empty(images, 4, self.groups * self.group))

    def _prepare(self, out: _Packed, images: Ids, places: Ids) -> None:
        threads = torch.get_num_threads()
        side_by_side(
            partial(self._lower, out),
            np.array_split(images, threads),
            np.array_split(places, threads),
        )

    def _lower(self, out: _Packed, images: Ids, places: Ids) -> None:
        """Round ascending images' rows, and pack them."""
        c, size, whole = self.channels, self.per_image, self.groups * self.group
        for part in self.parts(images):
            some = images[part]
            rows = self.rows(some)
            centred, room = torch.empty(2, len(rows), c)
            torch.sub(rows, self.centre, out=centred)
            norm = torch.linalg.vector_norm(centred, dim=1)
            must_be_small(norm)
            mixed, room = _mixed(centred, room)
            scale = _peaks(mixed, room).clamp_(min=TINY) / self.largest
            torch.div(mixed, scale[:, None], out=room).round_()
            low = torch.zeros(len(some), whole, c, dtype=torch.int8)
            low[:, :size] = room.view(-1, size, c)
            mixed.addcmul_(room, scale[:, None], value=-1)
            rounding = torch.linalg.vector_norm(mixed, dim=1)
            half = norm.square() / 2
            terms = torch.zeros(4, len(some), whole)
            terms[3] = NOTHING
            for term, values in zip(
                terms,
                (
                    scale,
                    norm * (1 + 2 * self.gamma),
                    rounding + 3 * self.gamma * norm,
                    2 * self.gamma * half - half,
                ),
                strict=True,
            ):
                term[:, :size] = values.view(-1, size)
            terms[3, -1, size - self.filled(some) : size] = NOTHING
            out.terms[torch.from_numpy(places[part])] = terms.movedim(0, 1)
            for place, one in zip(places[part].tolist(), low, strict=True):
                out.integers[place] = pack(one)


def _mixed(rows: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """Turn rows by a Hadamard matrix in blocks of 16 channels that lie apart, which evens them out.

    That changes no product. Few values then need a scale that is too coarse for all others.
    Overwrites `rows` and `room`, which is as large; the second that is returned is free again.
    """
    blocks, c = 1, rows.shape[1]
    while blocks < 16 and c % (2 * blocks) == 0:
        old, new = (one.view(len(rows), blocks, 2, -1) for one in (rows, room))
        torch.add(old[:, :, 0], old[:, :, 1], out=new[:, :, 0])
        torch.sub(old[:, :, 0], old[:, :, 1], out=new[:, :, 1])
        rows, room = room, rows
        blocks *= 2
    return rows.mul_(blocks**-0.5), room


def _peaks(rows: Tensor, room: Tensor) -> Tensor:
    """Return the largest absolute value of each row; `room` is as large as these."""
    return torch.abs(rows, out=room).amax(1)


def pack(integers: Tensor) -> Tensor:
    """Bring a matrix, int8 [N, C], into the order that products like."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(
        integers, [IntegerScreen.most, integers.shape[1]]
    )
    return packed


def multiply(
    queries: Tensor,
    scale: float,
    packed: Tensor,
    scales: Tensor,
    bracket: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """Return `scale * scales * (integers of queries) · (integers packed) + bracket`, [Q, N].

    Queries are uint8 [Q, C], their integers plus 128; scales and bracket are float32 [N].
    """
    product: Tensor = torch.ops.onednn.qlinear_pointwise(
        queries,
        scale,
        _ZERO,
        packed,
        scales,
        _no_shift(len(scales)),
        bracket,
        1.0,
        0,
        dtype,
        "none",
        [],
        "",
    )
    return product


@cache
def _no_shift(rows: int) -> Tensor:
    return torch.zeros(rows, dtype=torch.int32)


@cache
def largest() -> int:
    """Return the largest integers of rows of which products are exact; 0 where there are none.

    Processors without VNNI add pairs of products in 16 bits, which hold those of 64 alone.
    """
    for most in (_LARGEST, _LARGEST // 2 + 1):
        rows = torch.full((64, 64), most, dtype=torch.int8)
        rows[::2] *= -1
        rows[:, 32:] = torch.arange(-64, 64, 4, dtype=torch.int8)
        queries = rows.sign() * _LARGEST
        try:
            got = product_of(queries, rows, torch.float32)()
        except (AttributeError, RuntimeError):  # this torch, or this processor, has none
            break
        if bool((got == queries.double() @ rows.double().T).all()):
            return most
    return 0


@cache
def bounds_type() -> torch.dtype:
    """Return what products are best written as: bfloat16, or float32 where that is emulated."""
    ones = torch.ones(64, 64, dtype=torch.int8)
    low, full = (product_of(ones, ones, dtype) for dtype in (torch.bfloat16, torch.float32))
    of_low, of_full = least_seconds([low, full])
    return torch.bfloat16 if of_low < _SLOW * of_full else torch.float32


def product_of(a: Tensor, b: Tensor, dtype: torch.dtype) -> Callable[[], Tensor]:
    """Return what computes the product of matrices of integers, int8 [N, C] and [M, C]."""
    ones = torch.ones(len(b))
    return partial(
        multiply, (a.short() + _ZERO).byte(), 1.0, pack(b), ones, torch.zeros(len(b)), dtype
    )


def integer_bytes(channels: int) -> int:
    """Return what a row takes."""
    return channels + 16
