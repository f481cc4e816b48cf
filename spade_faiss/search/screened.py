"""Exact nearest patches by a low-precision screen that float32 decides.

With a query x and a gallery row y, both less a common centre (which changes no distance),

    s(x, y) = x·y - |y|²/2 = (|x|² - d²) / 2

is largest for the nearest row. A screen makes upper bounds of s + o by a product of low precision:
`floats` and `integers` show how, and prove it. They allow for γ = (C + 8) 2⁻²³, at least twice what
sums in float32 can lose (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1;
the other half covers the subtraction of the centre). The offset o is minus a score that is known
to be reached, in a sample, less its own rounding. A bound under zero therefore belongs to a row
that is no nearer. Of each group of some 8 to 32 rows only the largest bound is kept: no distance
matrix is ever written. Floats that are not negative are ordered as their bits are, so the largest
is found among 16-bit integers, six times as fast: where a group has no bound of zero or more, what
is kept is some negative one, which rules the group out as well.

Then float32 decides. The group of the largest bound is scored by differences; what is found
there, at distance d, is a threshold (|x|² - d²)/2 + o, less its own rounding, and a group whose
bound is under it holds nothing nearer. All other groups are scored by differences too. Where
too many are left of a query (large norms with small differences), its scores are computed in
float32, which are off by 2⁻¹⁶ of what the screen is off by; the rows that may still be the
nearest are near-ties, which differences alone can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import count

import numpy as np
import torch
from torch import Tensor

from ..types import Floats, Ids
from .floats import FloatScreen, float_bytes
from .integers import IntegerScreen, integer_bytes
from .pairs import least_of_each, pair_distances, pairs_where
from .screen import TINY, TOGETHER, Part, Screen, must_be_small
from .threads import side_by_side

Found = tuple[Floats, Ids]

_QUERIES = 512
"""Queries that are worth a thread."""
_UNEVEN = 1.2
"""Times as long as threads that all work to the end that a search may take."""
_CHUNK = 1 << 17
"""Bounds that are compared at a time."""
_BOUNDS = 48 << 20
"""Bytes of bounds that are kept at a time."""
_RESCORED = 1 << 16
"""Gallery rows that are scored by differences at a time."""
_SAMPLE = 128
"""Rows from which a query's best score is estimated."""
_HOPELESS = 1 / 16
"""Share of the groups left over from which on a query's scores in float32 are cheaper."""
_PASS = 3
"""Times as many groups as there are that such queries have to have left: each is read then."""
_SCORES = 16 << 20
"""Bytes of such scores that are kept at a time."""


def make_screen(
    patches: Tensor,
    per_image: int,
    precision: torch.dtype,
    keep: int = 0,
    images: Ids | None = None,
    once: bool = False,
) -> Screen:
    """Return a screen that computes in int8, bfloat16 or float32; it may be for one search."""
    if precision == torch.int8:
        return IntegerScreen(patches, per_image, keep, images)
    return FloatScreen(patches, per_image, precision, keep, images, once)


def low_bytes(rows: int, channels: int, precision: torch.dtype) -> int:
    """Return what a gallery takes in low precision, but for what fills up groups."""
    return rows * (
        integer_bytes(channels) if precision == torch.int8 else float_bytes(channels, precision)
    )


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
    orders = [screen.order(one) for one in queries]
    queries = [
        one if order is None else one[order] for one, order in zip(queries, orders, strict=True)
    ]
    row = max(map(len, images)) * screen.groups * screen.low.itemsize
    most = max(64, min(screen.most, _BOUNDS // threads // row))
    piece = min(max(_QUERIES, -(-sum(map(len, queries)) // threads)), most)
    # One set alone is cut so that no thread waits for the last piece.
    even = threads if len(queries) == 1 and len(queries[0]) > piece else 1
    pieces = [
        (i, part)
        for i, one in enumerate(queries)
        for part in torch.tensor_split(one, -(-len(one) // (piece * even)) * even)
    ]
    found: list[list[Found]] = [[] for _ in queries]
    at_once = max(threads, _BOUNDS // (piece * row))
    for at in range(0, len(pieces), at_once):
        here = pieces[at : at + at_once]
        parts = [screen.part(some, images[i]) for i, some in here]
        side_by_side(partial(_describe, screen, k), parts)
        for tile in screen.tiles(np.unique(np.concatenate([one.images for one in parts]))):
            _bound_all(screen, tile, parts)
        decided = side_by_side(partial(_decide, screen, k), parts)
        for (i, _), some in zip(here, decided, strict=True):
            found[i].append(some)
    return [_whole(some, order) for some, order in zip(found, orders, strict=True)]


def _whole(found: list[Found], order: Tensor | None) -> Found:
    """Put parts of what was found together, in the queries' own order."""
    distances = np.concatenate([some[0] for some in found])
    ids = np.concatenate([some[1] for some in found])
    if order is None:
        return distances, ids
    back = order.argsort().numpy()
    return distances[back], ids[back]


def _describe(screen: Screen, k: int, one: Part) -> None:
    """Have queries written in low precision, and estimate their best scores."""
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
    norm = torch.linalg.vector_norm(centred, dim=1)
    must_be_small(norm)
    # Less what the sample's scores, and the offset's own part in the product, may lose.
    most = half.max()
    doubt = norm * (2 * most).sqrt() + most
    known = screen.gamma * (doubt + reached.abs()) - reached
    known = torch.where(known.isfinite(), known, norm.square() / 2)
    one.half.copy_(norm.double().square_()).div_(2)
    screen.describe(one, centred, norm, known)


def _bound_all(screen: Screen, tile: Ids, parts: Sequence[Part]) -> None:
    """Find all parts' bounds in a tile of training images, cut so that threads end together."""
    prepared, places = screen.prepared(tile)
    cuts = _cuts(len(parts), torch.get_num_threads())
    shares = list(zip(np.array_split(tile, cuts), np.array_split(places, cuts), strict=True))
    work = []
    for one in parts:
        for images, where in shares:
            if not len(images):
                continue
            begin, end = np.searchsorted(one.images, [images[0], images[-1] + 1]).tolist()
            if begin < end:
                own = where[np.searchsorted(images, one.images[begin:end])]
                work.append((one, begin, prepared, own))
    side_by_side(lambda item: screen.bound(*item), work)


def _cuts(parts: int, threads: int) -> int:
    """Return into how many to cut each part's images so that few threads wait for the last."""
    return next(
        cuts for cuts in count(1) if -(-parts * cuts // threads) * threads <= _UNEVEN * parts * cuts
    )


def _decide(screen: Screen, k: int, one: Part) -> Found:
    """Score by differences every group that the bounds do not rule out."""
    total, n = len(one.images) * screen.groups, len(one.queries)
    blocks = one.bounds.view(TOGETHER, len(one.bounds) // TOGETHER, n)
    tops = _tops(screen, blocks)
    if k == 1:
        first = _reach(blocks, tops, tops.amax(0).clamp_(min=0), total)
    else:
        groups = one.bounds[:total].topk(min(k, total), 0).indices
        first = (groups * n + torch.arange(n)).view(-1).numpy()
    found = _Nearest(n, k)
    found.add(*_rescore(screen, one, first, k))
    near = torch.from_numpy(found.distances[:, -1]).double()
    threshold = (
        one.half
        - near / 2 * (1 + screen.gamma)
        + one.offset
        - screen.gamma * (one.half + one.offset.abs())
        - TINY
    ).to(screen.low)
    # Whichever way the product was rounded, it rounds no further than to the next number.
    threshold = torch.nextafter(threshold, torch.full_like(threshold, -torch.inf))
    # Bits order bounds from 0 on; where less is enough no group is ruled out, by the least bits.
    threshold = torch.where(threshold > 0, threshold, -0.0)
    if k == 1:
        threshold[near == 0] = torch.inf
    left = _reach(blocks, tops, threshold.view(one.bounds.dtype), total)
    left = np.setdiff1d(left, first, assume_unique=True)
    if len(left) > total * _HOPELESS:
        counts = np.bincount(left % n, minlength=n)
        many = counts > max(total * _HOPELESS, 8)
        if counts[many].sum() > total * _PASS:
            finely = _finely(screen, one, np.flatnonzero(many), k)
            found.distances[many], found.ids[many] = finely
            left = left[~many[left % n]]
    found.add(*_rescore(screen, one, left, k))
    return found.distances, found.ids


def _tops(screen: Screen, blocks: Tensor) -> Tensor:
    """Return the largest bound of each block, [blocks, Q], of those in [TOGETHER, blocks, Q]."""
    if screen.across:  # as they lie
        return blocks.permute(2, 0, 1).amax(1).T
    return blocks.amax(0)


def _reach(blocks: Tensor, tops: Tensor, least: Tensor, total: int) -> Ids:
    """Return the places, in `total` groups' flattened bounds, that are not under a query's `least`.

    Of blocks whose largest, in `tops`, is under it none is looked at.
    """
    limit = least.numpy()
    if tops.is_contiguous():  # as they lie
        heads, who = pairs_where(tops.numpy() >= limit)
    else:
        who, heads = pairs_where(tops.T.numpy() >= limit[:, None])
    bounds = blocks.permute(1, 2, 0).numpy()
    places, step = [np.empty(0, np.int64)], _CHUNK // TOGETHER
    for at in range(0, len(heads), step):
        asked, block = who[at : at + step], heads[at : at + step]
        pair, nth = pairs_where(bounds[block, asked] >= limit[asked, None])
        groups = block[pair] + len(tops) * nth
        here = groups * len(limit) + asked[pair]
        places.append(here[groups < total])
    return np.sort(np.concatenate(places))


def _finely(screen: Screen, one: Part, which: Ids, k: int) -> Found:
    """Search for the queries that the screen leaves too much of by scores in float32."""
    queries = one.queries[torch.from_numpy(which)]
    found = _Nearest(len(which), k)
    every = np.concatenate(
        [
            np.arange(i * screen.per_image, end)
            for i, end in zip(one.images, screen.ends(one.images), strict=True)
        ]
    )
    step = max(1, _SCORES // (4 * len(every)))
    for at in range(0, len(which), step):
        centred = queries[at : at + step] - screen.centre
        score, most, row = torch.empty(len(centred), len(every)), torch.zeros(()), 0
        for part in screen.parts(one.images):
            gallery = screen.rows_of(one.images[part]) - screen.centre
            half = torch.linalg.vector_norm(gallery, dim=1).square_().div_(2)
            most = torch.maximum(most, half.max())
            here = slice(row, row := row + len(gallery))
            torch.addmm(half, centred, gallery.T, beta=-1, out=score[:, here])
        reached = score.topk(k, 1).values[:, -1]
        doubt = torch.linalg.vector_norm(centred, dim=1) * (2 * most).sqrt() + most
        likely = (score >= (reached - 2 * screen.gamma * doubt - TINY)[:, None]).numpy()
        for i in range(len(likely)):
            near = every[likely[i]]
            for begin in range(0, len(near), _RESCORED):
                ids = near[begin : begin + _RESCORED]
                own = np.full(len(ids), at + i)
                distances = pair_distances(
                    queries, torch.from_numpy(own), screen.patches, torch.from_numpy(ids)
                ).numpy()
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
        self.distances[asked], self.ids[asked] = least_of_each(asked, owner, near, rows, k)


def _rescore(screen: Screen, one: Part, places: Ids, k: int) -> tuple[Ids, Floats, Ids]:
    """Return for places in the bounds the query, and the group's `k` nearest rows, or all."""
    groups, who = np.divmod(places, one.bounds.shape[1])
    size = screen.group
    image, inside = np.divmod(groups, screen.groups)
    image = one.images[image]
    begin, end = screen.first_rows(image, inside), screen.ends(image)
    m = min(k, size)
    distances = np.empty((len(groups), m), np.float32)
    ids = np.empty((len(groups), m), np.int64)
    step = max(1, _RESCORED // size)
    for at in range(0, len(groups), step):
        part = slice(at, at + step)
        rows = begin[part, None] + screen.step * np.arange(size)
        outside = rows >= end[part, None]
        if outside.any():
            np.minimum(rows, end[part, None] - 1, out=rows)
        near = pair_distances(
            one.queries,
            torch.from_numpy(who[part].repeat(size)),
            screen.patches,
            torch.from_numpy(rows.ravel()),
        ).view(-1, size)
        if outside.any():
            near[torch.from_numpy(outside)] = torch.inf
        if m == 1:
            least, order = near.min(1, keepdim=True)
        else:
            least, order = near.topk(m, 1, largest=False)
        distances[part] = least.numpy()
        ids[part] = np.take_along_axis(rows, order.numpy(), 1)
    return who, distances, ids
