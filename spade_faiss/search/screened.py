"""Exact nearest patches by a low-precision screen that float32 decides.

With a query x and a gallery row y, both less a common centre (which changes no distance),

    s(x, y) = x·y - |y|²/2 = (|x|² - d²) / 2

is largest for the nearest row. Rounded to bfloat16 they become x̂ and ŷ, and

    x·y = x̂·ŷ + (x - x̂)·y + x̂·(y - ŷ)  ≤  x̂·ŷ + |x - x̂||y| + |x̂||y - ŷ|.

The right-hand side, and all else that rounding can add, is one inner product of longer vectors:

    query         x̂   |x - x̂|   |x̂|              1      1            o
    gallery row   ŷ   |y|        |y - ŷ| + γ|y|   hi     lo + γ|y|²/2  1

with hi + lo = -|y|²/2, each entry rounded upwards, and γ = (C + 8) 2⁻²³ at least twice what the
sums in float32 can lose (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1;
the other half covers the subtraction of the centre). So a matrix product in bfloat16 yields
upper bounds of s + o. The offset o is minus a score that is known to be reached, in a sample or
in what was searched before, less its own rounding. A bound under zero therefore belongs to a row
that is no nearer, and the bounds that matter lie near zero, where rounding the product to
bfloat16 takes little. Of each group of some 8 to 32 rows only the largest bound is kept: no
distance matrix is ever written. Floats that are not negative are ordered as their bits are, so
the largest is found among 16-bit integers, six times as fast: where a group has no bound of zero
or more, what is kept is some negative one, which rules the group out as well.

Then float32 decides. The group of the largest bound is scored by differences; what is found
there, at distance d, is a threshold (|x|² - d²)/2 + o, less its own rounding, and a group whose
bound is under it holds nothing nearer. All other groups are scored by differences too. Where
too many are left of a query (large norms with small differences), its scores are computed in
float32, which are off by 2⁻¹⁶ of what the screen is off by; the rows that may still be the
nearest are near-ties, which differences alone can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .pairs import pair_distances
from .threads import side_by_side

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Found = tuple[Floats, Ids]

LARGEST_NORM = 2.0**60
"""From this norm on, squares may leave the range of float32."""
_QUERIES = 512, 4096
"""Queries that are worth a thread, and the most that are searched for at a time."""
_CHUNK = 1 << 17
"""Bounds that are compared at a time."""
_BOUNDS = 48 << 20
"""Bytes of bounds that are kept at a time."""
_PREPARED = 8 << 20
"""Bytes of gallery in low precision at a time."""
_LOWERED = 1 << 22
"""Bytes of gallery that are rounded to low precision at a time: with fewer, threads wait for one
another between the steps."""
_PRODUCT = {torch.bfloat16: 3 << 20, torch.float32: 1 << 20}
"""Bytes of the product at a time: it is to stay in cache."""
_GATHERED = 2 << 20
"""Bytes of prepared rows that are gathered at a time where images do not follow one another."""
_RESCORED = 1 << 16
"""Gallery rows that are scored by differences at a time."""
_CENTRE = 16, 256
"""Images, and rows of them in all, whose mean is the common centre."""
_SAMPLE = 128
"""Rows from which a query's best score is estimated."""
_HOPELESS = 1 / 64
"""Share of the groups left over from which on a query's scores in float32 are cheaper."""
_SCORES = 64 << 20
"""Bytes of such scores that are kept at a time."""
_TINY = 2.0**-100
"""More than what underflow can take from a score."""


class Screen:
    """A gallery whose rows become columns of the screen's product.

    Parameters
    ----------
    patches : float32 or float16 tensor [rows, C]
        Row `i * per_image + j` is patch j of image i; the last image may have fewer.
    per_image : int
    dtype : torch.bfloat16 or torch.float32
        What the screen computes in. The result does not depend on it.
    keep : int
        Bytes of prepared rows that may be kept from one search to the next.
    images : int64 [n], optional
        Some images that the common centre is to be that of, instead of all.
    """

    def __init__(
        self, patches: Tensor, per_image: int, dtype: torch.dtype = torch.bfloat16, keep: int = 0,
        images: Ids | None = None,
    ) -> None:
        self.patches = patches
        self.per_image = per_image
        self.dtype = dtype
        self.channels = patches.shape[1]
        self.width = _width(self.channels)
        self.group = _group_size(per_image, self.channels)
        self.groups = -(-per_image // self.group)
        self.gamma = (self.channels + 8) * 2.0**-23
        self.images = -(-len(patches) // per_image)
        # Few rows suffice, of images that are read anyway.
        if images is None:
            images = np.arange(self.images)
        some = images[:: -(-len(images) // _CENTRE[0])]
        step = -(-per_image // (_CENTRE[1] // len(some)))
        rows = torch.cat([patches[i * per_image : (i + 1) * per_image : step] for i in some])
        [self.centre] = side_by_side(lambda rows: rows.float().mean(0), [rows])
        self._short = -len(patches) % per_image
        self._ready = np.zeros(self.images, bool)
        shape = (self.images, self.groups * self.group, self.width)
        self._kept: Tensor | None = None
        if low_bytes(len(patches), self.channels, dtype) <= keep:
            self._kept = torch.empty(shape, dtype=dtype)

    def ends(self, images: Ids) -> Ids:
        """Return the row after each image's last."""
        return np.minimum((images + 1) * self.per_image, len(self.patches))

    def up(self, values: Tensor) -> Tensor:
        """Return values that are no less once they are rounded to the screen's type."""
        unit = 2.0**-7 if self.dtype == torch.bfloat16 else 2.0**-22
        return values + values.abs() * unit

    def lowered(self, centred: Tensor, low: Tensor, back: Tensor, sizes: Tensor) -> None:
        """Write rows in low precision to [rows, C], their norms and roundings to [2, rows].

        What is rounded away of `centred` is left in its place. `back` is as large, to work in.
        """
        torch.linalg.vector_norm(centred, dim=1, out=sizes[0])
        low.copy_(centred)
        if self.dtype == torch.float32:
            sizes[1] = 0
        else:
            back.copy_(low)  # of two types a subtraction would take twice as long
            torch.linalg.vector_norm(centred.sub_(back), dim=1, out=sizes[1])

    def prepared(self, images: Ids) -> tuple[Tensor, Ids]:
        """Return rows in low precision, [n, groups * group, width], and ascending images' places.

        Of rows that are kept, all are returned.
        """
        if self._kept is None:
            places = np.arange(len(images))
            out = torch.empty(
                len(images), self.groups * self.group, self.width, dtype=self.dtype)
        else:
            places, out = images, self._kept
        missing = ~self._ready[images]
        if missing.any():
            new, into = images[missing], places[missing]
            sizes = torch.empty(2, len(new), self.per_image)
            threads = torch.get_num_threads()
            side_by_side(
                partial(self._lower, out), np.array_split(new, threads),
                np.array_split(into, threads), torch.tensor_split(sizes, threads, 1))
            side_by_side(partial(self._complete, out), [new], [into], [sizes])
            self._ready[new] = self._kept is not None
        return out, places

    def tiles(self, images: Ids) -> list[Ids]:
        """Cut ascending images into tiles that are to be prepared at a time."""
        if self._kept is not None:
            return [images]
        image_bytes = self.groups * self.group * self.width * _size(self.dtype)
        step = max(1, _PREPARED // image_bytes)
        return [images[at : at + step] for at in range(0, len(images), step)]

    def _lower(self, out: Tensor, images: Ids, places: Ids, sizes: Tensor) -> None:
        """Round ascending images' rows, with no small operation between the large ones."""
        c = self.channels
        step = max(1, _LOWERED // (4 * c))
        room = torch.empty(2, min(step, len(images) * self.per_image), c)
        for some in self.parts(images):
            rows, where = self._rows(images[some]), _index(places[some])
            direct = self.per_image == out.shape[1] and isinstance(where, slice)
            low = out[where].view(-1, self.width)[:, :c] if direct else (
                torch.empty(len(rows), c, dtype=self.dtype))
            for part, into, measures in zip(
                torch.split(rows, step), torch.split(low, step),
                torch.split(sizes[:, some].flatten(1), step, 1), strict=True,
            ):
                centred, back = room[:, : len(part)]
                torch.sub(part, self.centre, out=centred)
                self.lowered(centred, into, back, measures)
            if not direct:
                out[where, : self.per_image, :c] = low.view(-1, self.per_image, c)

    def parts(self, images: Ids) -> list[slice]:
        """Cut ascending images into a few at a time; one that is not whole comes alone."""
        step = max(1, _LOWERED // (4 * self.channels * self.per_image))
        starts = {*range(0, len(images), step)}
        if self._short and len(images) and images[-1] == self.images - 1:
            starts.add(len(images) - 1)
        return [slice(*ends) for ends in pairwise([*sorted(starts), len(images)])]

    def rows_of(self, images: Ids) -> Tensor:
        """Return the rows of a part of the images, [n, C], and no more than there are."""
        return self._rows(images)[: int((self.ends(images) - images * self.per_image).sum())]

    def _rows(self, images: Ids) -> Tensor:
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

    def _complete(self, out: Tensor, images: Ids, places: Ids, sizes: Tensor) -> None:
        """Write what bounds rows beside them, and fill up each image to whole groups."""
        norm, rounding = sizes
        if not bool(norm.max() < LARGEST_NORM):
            raise OverflowError
        half = norm.square() / 2
        high = (-half).to(self.dtype)
        c, where = self.channels, _index(places)
        more = torch.zeros(len(images), out.shape[1], self.width - c, dtype=self.dtype)
        bound = more[:, : self.per_image]
        bound[:, :, 0] = self.up(norm)
        bound[:, :, 1] = self.up(rounding + self.gamma * norm)
        bound[:, :, 2] = high
        bound[:, :, 3] = self.up(-half - high + self.gamma * half)
        bound[:, :, 4] = 1
        nothing = -(2.0**120)
        more[:, self.per_image :, 2] = nothing
        if images[-1] == self.images - 1:
            more[-1, self.per_image - self._short :, 2] = nothing
        out[where, :, c:] = more
        out[where, self.per_image :, :c] = 0


def screened(
    screen: Screen, queries: Sequence[Tensor], images: Sequence[Ids], k: int = 1
) -> list[Found]:
    """Search for sets of queries, each among the patches of its own training images.

    A training image that several sets share is prepared once for all of them.

    Parameters
    ----------
    screen : Screen
    queries : sequence of float32 tensors [Q, C]
    images : sequence of int64 [K]
        For each set, the images to search in, each once. The first serves to estimate the
        best score.
    k : int

    Raises
    ------
    OverflowError
        If a norm, less the centre, is `LARGEST_NORM` or more.

    Returns
    -------
    list of (distances float32 [Q, k], squared and ascending; rows of the gallery int64 [Q, k])
    """
    threads = torch.get_num_threads()
    row = max(map(len, images)) * screen.groups * _size(screen.dtype)
    most = max(64, min(_QUERIES[1], _BOUNDS // threads // row))
    piece = min(max(_QUERIES[0], -(-sum(map(len, queries)) // threads)), most)
    # One set alone is cut so that no thread waits for the last piece.
    even = threads if len(queries) == 1 and len(queries[0]) > piece else 1
    pieces = [
        (i, part) for i, one in enumerate(queries)
        for part in torch.tensor_split(one, -(-len(one) // (piece * even)) * even)
    ]
    found: list[list[Found]] = [[] for _ in queries]
    at_once = max(threads, _BOUNDS // (piece * row))
    for at in range(0, len(pieces), at_once):
        here = pieces[at : at + at_once]
        sets = [_Set.of(screen, part, images[i]) for i, part in here]
        side_by_side(partial(_describe, screen, k), sets)
        for tile in screen.tiles(np.unique(np.concatenate([one.images for one in sets]))):
            _bound_all(screen, tile, sets)
        decided = side_by_side(partial(_decide, screen, k), sets)
        for (i, _), part in zip(here, decided, strict=True):
            found[i].append(part)
    return [
        (np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))
        for parts in found
    ]


@dataclass(frozen=True)
class _Set:
    """Queries that share their training images.

    Attributes
    ----------
    queries : float32 [Q, C]
    nearest : int
        The training image that serves to estimate the best score.
    images : int64 [K], ascending
    columns : [width, Q], in low precision
    half, offset : float64 [Q]
        |x|²/2 and o.
    bounds : [K * groups, Q], the bits of the largest bound of each group
    best : [Q], the bits of the largest of all
    """

    queries: Tensor
    nearest: int
    images: Ids
    columns: Tensor
    half: Tensor
    offset: Tensor
    bounds: Tensor
    best: Tensor

    @classmethod
    def of(cls, screen: Screen, queries: Tensor, images: Ids) -> _Set:
        """Return room for what is to be computed of some queries."""
        n, bits = len(queries), _bits(screen.dtype)
        return cls(
            queries, int(images[0]), np.sort(images),
            torch.empty(n, screen.width, dtype=screen.dtype).T,
            torch.empty(n, dtype=torch.float64), torch.empty(n, dtype=torch.float64),
            torch.empty(len(images) * screen.groups, n, dtype=bits), torch.zeros(n, dtype=bits),
        )


def _describe(screen: Screen, k: int, one: _Set) -> None:
    """Compute the columns of some queries."""
    start = one.nearest * screen.per_image
    stop = min(start + screen.per_image, len(screen.patches))
    step = -(-(stop - start) // max(_SAMPLE, 2 * k))
    sample = screen.patches[start:stop:step] - screen.centre
    half = sample.square().sum(1) / 2
    centred = one.queries - screen.centre
    if k > len(sample):
        reached = torch.full((len(centred),), -torch.inf)
    else:
        scores = torch.addmm(half, centred, sample.T, beta=-1)
        reached = scores.amax(1) if k == 1 else scores.kthvalue(len(sample) - k + 1).values
    low, c = one.columns.T, screen.channels
    norm, rounding = sizes = torch.empty(2, len(centred))
    screen.lowered(centred, low[:, :c], torch.empty_like(centred), sizes)
    if not bool(norm.max() < LARGEST_NORM):
        raise OverflowError
    # Less what the sample's scores, and this column's own part in the product, may lose.
    most = half.max()
    doubt = norm * (2 * most).sqrt() + most
    known = screen.gamma * (doubt + reached.abs()) - reached
    known = torch.where(known.isfinite(), known, norm.square() / 2)
    low[:, c:] = 0
    low[:, c] = screen.up(rounding)
    low[:, c + 1] = screen.up(norm + rounding)
    low[:, c + 2 : c + 4] = 1
    low[:, c + 4] = screen.up(known + _TINY)
    one.half.copy_(norm.double().square_()).div_(2)
    one.offset.copy_(low[:, c + 4])


def _bound_all(screen: Screen, tile: Ids, sets: Sequence[_Set]) -> None:
    """Find the bounds of all sets in a tile of training images; few sets leave threads a part."""
    prepared, places = screen.prepared(tile)
    cuts = -(-torch.get_num_threads() // len(sets))
    parts = list(zip(np.array_split(tile, cuts), np.array_split(places, cuts), strict=True))
    work = [(one, *part, prepared) for one in sets for part in parts if len(part[0])]
    largest = side_by_side(lambda item: _bound(screen, *item), work)
    for (one, *_), best in zip(work, largest, strict=True):
        if best is not None:
            torch.maximum(one.best, best, out=one.best)


def _bound(screen: Screen, one: _Set, tile: Ids, places: Ids, prepared: Tensor) -> Tensor | None:
    """Find the bounds of one set in a tile of training images; return the largest a query."""
    begin, end = np.searchsorted(one.images, [tile[0], tile[-1] + 1]).tolist()
    if begin == end:
        return None
    where = places[np.searchsorted(tile, one.images[begin:end])]
    best = one.bounds[begin * screen.groups : end * screen.groups]
    group, n = screen.group, one.columns.shape[1]
    step = max(1, _PRODUCT[screen.dtype] // (_size(screen.dtype) * n * group))
    product = torch.empty(min(step, len(best)) * group, n, dtype=screen.dtype)
    bits = product.view(best.dtype).view(-1, group, n)
    at = 0
    for rows in _in_turn(prepared, where):
        here = best[at : at + len(rows) // group]
        at += len(here)
        for part, largest in zip(
            torch.split(rows, step * group), torch.split(here, step), strict=True
        ):
            torch.mm(part, one.columns, out=product[: len(part)])
            torch.amax(bits[: len(largest)], 1, out=largest)
    return best.amax(0)


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


def _decide(screen: Screen, k: int, one: _Set) -> Found:
    """Score by differences every group that the bounds do not rule out."""
    total, n = one.bounds.shape
    if k == 1:
        first = _reach(one.bounds, one.best)
    else:
        groups = one.bounds.topk(min(k, total), 0).indices
        first = (groups * n + torch.arange(n)).view(-1).numpy()
    found = _Nearest(n, k)
    found.add(*_rescore(screen, one, first, k))
    near = torch.from_numpy(found.distances[:, -1]).double()
    threshold = (
        one.half - near / 2 * (1 + screen.gamma) + one.offset
        - screen.gamma * (one.half + one.offset.abs()) - _TINY
    ).to(screen.dtype)
    # Whichever way the product was rounded, it rounds no further than to the next number.
    threshold = torch.nextafter(threshold, torch.full_like(threshold, -torch.inf))
    # Bits order bounds from 0 on; where less is enough no group is ruled out, by the least bits.
    threshold = torch.where(threshold > 0, threshold, -0.0)
    if k == 1:
        threshold[near == 0] = torch.inf
    left = _reach(one.bounds, threshold.view(one.bounds.dtype))
    left = np.setdiff1d(left, first, assume_unique=True)
    if len(left) > total * _HOPELESS:
        many = np.bincount(left % n, minlength=n) > max(total * _HOPELESS, 8)
        if many.any():
            finely = _finely(screen, one, np.flatnonzero(many), k)
            found.distances[many], found.ids[many] = finely
            left = left[~many[left % n]]
    found.add(*_rescore(screen, one, left, k))
    return found.distances, found.ids


def _reach(bounds: Tensor, least: Tensor) -> Ids:
    """Return the places, in the flattened bounds, that are not under their query's `least`."""
    n = len(least)
    step = max(1, _CHUNK // n)
    values, limit = bounds.numpy(), least.numpy()
    found = [
        np.flatnonzero(values[at : at + step] >= limit) + at * n
        for at in range(0, len(values), step)
    ]
    return np.concatenate(found)


def _finely(screen: Screen, one: _Set, which: Ids, k: int) -> Found:
    """Search for the queries that the screen leaves too much of by scores in float32."""
    queries = one.queries[torch.from_numpy(which)]
    found = _Nearest(len(which), k)
    every = np.concatenate([
        np.arange(i * screen.per_image, end)
        for i, end in zip(one.images, screen.ends(one.images), strict=True)
    ])
    step = max(1, _SCORES // (4 * len(every)))
    for at in range(0, len(which), step):
        centred = queries[at : at + step] - screen.centre
        scores, most = [], torch.zeros(())
        for part in screen.parts(one.images):
            gallery = screen.rows_of(one.images[part]) - screen.centre
            half = gallery.square().sum(1) / 2
            most = torch.maximum(most, half.max())
            scores.append(torch.addmm(half, centred, gallery.T, beta=-1))
        score = torch.cat(scores, 1)
        reached = score.topk(k, 1).values[:, -1]
        doubt = torch.linalg.vector_norm(centred, dim=1) * (2 * most).sqrt() + most
        likely = (score >= (reached - 2 * screen.gamma * doubt - _TINY)[:, None]).numpy()
        for i in range(len(likely)):
            near = every[likely[i]]
            for begin in range(0, len(near), 1 << 14):
                ids = near[begin : begin + (1 << 14)]
                own = np.full(len(ids), at + i)
                distances = pair_distances(
                    queries, torch.from_numpy(own), screen.patches, torch.from_numpy(ids)).numpy()
                found.add(own, distances[:, None], ids[:, None])
    return found.distances, found.ids


class _Nearest:
    """The nearest rows found so far: distances [Q, k] ascending, and ids [Q, k]."""

    def __init__(self, n: int, k: int) -> None:
        self.distances = np.full((n, k), np.inf, np.float32)
        self.ids = np.full((n, k), -1, np.int64)

    def add(self, who: Ids, distances: Floats, ids: Ids) -> None:
        """Take in the nearest rows [pairs, m] of some more groups for the queries `who`."""
        if not len(who):
            return
        k = self.distances.shape[1]
        asked = np.unique(who)
        m = distances.shape[1]
        owner = np.concatenate([np.repeat(asked, k), np.repeat(who, m)])
        near = np.concatenate([self.distances[asked].ravel(), distances.ravel()])
        rows = np.concatenate([self.ids[asked].ravel(), ids.ravel()])
        order = np.lexsort((near, owner))
        starts = np.searchsorted(owner[order], asked)
        chosen = order[starts[:, None] + np.arange(k)]
        self.distances[asked], self.ids[asked] = near[chosen], rows[chosen]


def _rescore(screen: Screen, one: _Set, places: Ids, k: int) -> tuple[Ids, Floats, Ids]:
    """Return for places in the bounds the query, and the group's `k` nearest rows, or all."""
    groups, who = np.divmod(places, one.bounds.shape[1])
    size = min(screen.group, len(screen.patches))
    image, inside = np.divmod(groups, screen.groups)
    begin = one.images[image] * screen.per_image + inside * screen.group
    end = np.minimum(begin + screen.group, screen.ends(one.images)[image])
    # Rows of the next image may follow in a group, or of this one's last group precede.
    start = np.minimum(begin, len(screen.patches) - size)
    m = min(k, size)
    distances = np.empty((len(groups), m), np.float32)
    ids = np.empty((len(groups), m), np.int64)
    step = max(1, _RESCORED // size)
    for at in range(0, len(groups), step):
        part = slice(at, at + step)
        rows = start[part, None] + np.arange(size)
        near = pair_distances(
            one.queries, torch.from_numpy(who[part].repeat(size)), screen.patches,
            torch.from_numpy(rows.ravel()),
        ).view(-1, size)
        outside = (rows < begin[part, None]) | (rows >= end[part, None])
        if outside.any():
            near[torch.from_numpy(outside)] = torch.inf
        if m == 1:
            least, order = near.min(1, keepdim=True)
        else:
            least, order = near.topk(m, 1, largest=False)
        distances[part] = least.numpy()
        ids[part] = start[part, None] + order.numpy()
    return who, distances, ids


def low_bytes(rows: int, channels: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Return what a gallery takes in low precision, but for what fills up groups."""
    return rows * _width(channels) * _size(dtype)


def _width(channels: int) -> int:
    return -(-(channels + 5) // 16) * 16


def _group_size(per_image: int, channels: int) -> int:
    """Return the rows of a group: what saves bounds where channels are few costs rescoring."""
    wished = 32 if channels < 64 else 16 if channels < 192 else 8
    sizes = range(wished * 3 // 4, wished * 5 // 4 + 1)
    return min(sizes, key=lambda size: (-per_image % size, abs(size - wished)))


def _index(images: Ids) -> slice | Tensor:
    """Return an index of ascending places that copies nothing if they follow one another."""
    first, last = int(images[0]), int(images[-1])
    if last - first == len(images) - 1:
        return slice(first, last + 1)
    return torch.from_numpy(images)


def _size(dtype: torch.dtype) -> int:
    return 2 if dtype == torch.bfloat16 else 4


def _bits(dtype: torch.dtype) -> torch.dtype:
    return torch.int16 if dtype == torch.bfloat16 else torch.int32
