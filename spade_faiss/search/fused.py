"""Exact nearest patches on a GPU: a fused low-precision screen that float32 decides.

With a query x and a gallery row y, both less a common centre (which changes no distance),

    s(x, y) = x·y - |y|²/2 = (|x|² - d²) / 2

is largest for the nearest row. With x̂ and ŷ rounded to float16 for the tensor cores,

    |x·y - x̂·ŷ|  ≤  |x - x̂||y| + |x̂||y - ŷ|,

where the roundings' norms are measured, not estimated. So for a group of rows of one training
image, of which N is the largest |y| and R the largest |y - ŷ| + τ(|y| + |y - ŷ|), every score is
within

    e = |x - x̂| N + |x̂| R + γ N²/2

of what the kernel computes. Here γ = (C + 16) 2⁻²² is at least four times what a sum of C terms
in float32 can lose in any order (Higham, *Accuracy and Stability of Numerical Algorithms*,
section 3.1), and τ = (C + 16) 2⁻²¹ is an allowance for the tensor cores. These keep products
exact but do not round each addition: they line up a block of n products and the sum so far by
the largest exponent, cut what is below its 24 bits or more, and add (Fasi et al., *Numerical
behavior of NVIDIA tensor cores*, 2021). Each of the C/n blocks can so lose (n + 2) 2⁻²³ of the
largest sum, which with n ≥ 4 makes 1.5 C 2⁻²³ |x̂||ŷ| at most; τ is 2.6 times that. What is left
over in τ and γ pays for the rounding of the norms, of the bounds and of the centred values.

float16 has three bits more than bfloat16 at the same speed, so the bounds are 8 times as tight.
Its narrow range does no harm: the gallery is scaled by one power of two and each query by its
own, so that the largest channel lies in 2¹⁴…2¹⁵ (everything is then in units of the query's
scale), and what is 2²⁸ times smaller than that still keeps all bits. Tensor cores take
subnormal float16 numbers as they are.

Four kernels do the work (`kernels`):

1. `lower` centres, scales and rounds the queries. The gallery went through it once (`prepare`).
2. `screen` multiplies on the tensor cores and keeps of each (query, group) only the upper bound,
   largest score + e, and of each query the best lower bound, largest score - e, the floor. No
   product leaves the registers.
3. `collect` lists the pairs whose upper bound is not below their query's floor.
4. `rescore` takes the listed pairs, again row by row: a row whose own bound is below the floor,
   or below the score that the best exact distance so far stands for, is not nearer. All others
   are scored by differences in float32, and these alone make the result.

For k > 1 the floor is the k-th best group's lower bound.

A group is made of the rows that lie 64 apart in an image (in small images, of a few neighbours
at each such place), so that a maximum is taken where the tensor cores leave the scores: no thread
needs another's before the image's end.

Operations and bytes of one image at K = 50 with Wide-ResNet-50-2's levels:

    level              1: 3136 x 156800 x 256    2: 784 x 39200 x 512    3: 196 x 9800 x 1024
    tensor cores       252 GFLOP                 31.5 GFLOP              3.9 GFLOP
    gallery, float16   80 MB                     40 MB                   20 MB
      read from L2     13 x 80 MB = 1 GB         7 x 40 MB = 281 MB      2 x 20 MB = 40 MB
    groups an image    64 of 49 rows             32 of 25 rows           8 of 25 rows
    upper bounds       40 MB, written and read   5 MB                    0.3 MB
    pairs a query      1.04                      1.16                    1.38
    rescoring          25 kB a pair: 82 MB       26 kB a pair: 23 MB     52 kB a pair: 14 MB

and the microseconds of each kernel on an H200, for an image of a batch of 32, as
`benchmarks/gpu.py` measured them (its pairs are those above):

    screen             427                       77                      12
    collect            16                        3                       1
    rescore            39                        11                      6

There the float16 product of two matrices of 8192 x 8192 runs at 738 TFLOP/s, at which all three
levels would take 389 microseconds; the search takes 638, with what starts and ends a call.

In `screen`, a step of 256 queries x 64 rows x 256 channels takes a Hopper multiprocessor's tensor
cores 2048 cycles. What comes after it, a multiply-add and a maximum for each of a thread's 64
scores, is put off until they are at the next step. Rows are prefetched two steps ahead; each
byte of the gallery from L2 is used for 256 operations.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from . import kernels

_STRIDE = 64
"""Rows of an image this far apart share an upper bound."""
_GROUP = 32
"""Rows that share one, or more where an image has many."""
_MAXIMA = 256 << 20
"""Bytes of upper bounds that are kept at a time."""
_PAIRS = 1 << 20
"""(query, group) pairs that are listed at a time."""
_WHOLE = 256
"""Channels up to which a row may stay in shared memory whole."""
_BLOCK = 128
"""Channels that `lower` and `rescore` handle at once."""
_PSEUDO_IMAGE = 1024
"""Rows that stand for an image in a gallery that is no set of images."""
_TAIL = 256
"""Rows after the gallery's last that a tile may read (and then leaves out)."""
_TOO_LARGE = "{} hold NaN, infinite or too large values; norms must be under 2^60"


@dataclass(frozen=True)
class PreparedGallery:
    """Training patches, and what a screen needs of them; made by `prepare`.

    Attributes
    ----------
    patches : float32 [N, C]
        As passed to `prepare`, not copied.
    per_image : int
        Patches a training image; the last image may have fewer.
    centre : float32 [C]
    scale : float
        A power of two.
    rows : float16 [N + tail, channels]
        (patches - centre) * scale, rounded; filled up with zeros.
    half : float32 [N]
        Half the squared norms of the scaled rows.
    reach, slack : float32 [images, groups]
        N and R of each group of rows (see the module).
    fold : int
        Neighbouring rows that share a group.
    """

    patches: Tensor
    per_image: int
    centre: Tensor
    scale: float
    rows: Tensor
    half: Tensor
    reach: Tensor
    slack: Tensor
    fold: int

    @property
    def channels(self) -> int:
        """Channels of `rows`: those of the patches, filled up."""
        return self.rows.shape[1]

    @property
    def images(self) -> int:
        """Training images."""
        return self.reach.shape[0]

    @property
    def groups(self) -> int:
        """Groups an image."""
        return self.reach.shape[1]

    @property
    def members(self) -> int:
        """Rows a group, filled up to whole `_GROUP`s."""
        tiles = -(-self.per_image // _STRIDE)
        return -(-tiles * self.fold // _GROUP) * _GROUP


def prepare(patches: Tensor, per_image: int) -> PreparedGallery:
    """Return a gallery ready to be searched many times; it adds half the patches' bytes.

    Parameters
    ----------
    patches : float32 [N, C], contiguous, on a CUDA device
        Row `i * per_image + j` is patch j of image i. Norms under 2⁶⁰.
    per_image : int

    Raises
    ------
    ValueError
        If the shape does not fit, or the patches are on the CPU (where only Triton's
        interpreter runs: TRITON_INTERPRET=1).
    OverflowError
        If values are not finite or too large.
    """
    if not (patches.is_cuda or _interpreted()):
        raise ValueError("the triton engine needs tensors on a CUDA device")
    if patches.ndim != 2 or 0 in patches.shape or patches.dtype != torch.float32:
        raise ValueError(f"patches are {patches.dtype} {list(patches.shape)}; pass float32 [N, C]")
    if len(patches) >= 2**31 - 1:
        raise ValueError(f"{len(patches)} patches are too many; search in parts of 2^31")
    if not 1 <= per_image <= len(patches):
        raise ValueError(f"per_image = {per_image} must lie between 1 and {len(patches)}")
    patches = patches.contiguous()
    n, c = patches.shape
    with _on(patches.device):
        centre = patches[:: max(1, n // 4096)].mean(0)
        least, largest = (float(v) for v in patches.aminmax())
        spread = max(largest - float(centre.min()), float(centre.max()) - least)
        if not spread < _limit(c):
            raise OverflowError(_TOO_LARGE.format("patches"))
        scale = 2.0 ** min(60, 15 - math.frexp(spread)[1])
        channels = _filled_up(c)
        rows = torch.empty(n + _TAIL, channels, dtype=torch.float16, device=patches.device)
        rows[n:] = 0
        stats = _lower(patches, centre, scale, rows)
    norm, rounding, _, square = stats
    images, tiles = -(-n // per_image), -(-per_image // _STRIDE)
    fold = max(1, _GROUP >> (tiles - 1).bit_length())

    def largest_of_groups(values: Tensor) -> Tensor:
        full = values.new_zeros(images * per_image)
        full[:n] = values
        padding = (0, tiles * _STRIDE - per_image)
        padded = torch.nn.functional.pad(full.view(images, per_image), padding)
        return padded.view(images, tiles, _STRIDE // fold, fold).amax((1, 3)).contiguous()

    reach = largest_of_groups(norm)
    slack = largest_of_groups(rounding + _tau(c) * (norm + rounding))
    return PreparedGallery(patches, per_image, centre, scale, rows, square / 2, reach, slack, fold)


def fused(queries: Tensor, gallery: Tensor | PreparedGallery, k: int = 1) -> tuple[Tensor, Tensor]:
    """Return the squared distances [Q, k], ascending, and the rows [Q, k] of the nearest rows.

    Parameters
    ----------
    queries : float32 [Q, C]
        Finite, norms under 2⁶⁰.
    gallery : float32 [G, C], or prepared
    k : int, 1 to G
    """
    if isinstance(gallery, Tensor):
        gallery = prepare(gallery, min(_PSEUDO_IMAGE, max(1, len(gallery))))
    images = torch.arange(gallery.images, device=queries.device)[None]
    distances, ids = fused_in_images(queries[None], gallery, images, gallery.per_image, k)
    return distances[0], ids[0]


def fused_in_images(
    queries: Tensor, patches: Tensor | PreparedGallery, images: Tensor, per_image: int, k: int = 1
) -> tuple[Tensor, Tensor]:
    """Search for batches of queries, each among the patches of its own training images.

    Parameters
    ----------
    queries : float32 [B, Q, C], on a CUDA device
        Finite, norms under 2⁶⁰.
    patches : float32 [N, C], or prepared
        Row `i * per_image + j` is patch j of image i; the last image may have fewer. Prepare
        what is searched more than once.
    images : int64 [B, K]
        For each batch item the images to search in, distinct, in any order.
    per_image : int
    k : int
        Neighbours a query, at most the patches of an item's images.

    Returns
    -------
    distances : float32 [B, Q, k]
        Squared Euclidean, ascending, computed from differences.
    ids : int64 [B, Q, k]
        Rows of `patches`. Of rows at equal distance the first comes first.

    Raises
    ------
    ValueError
        If shapes or devices do not fit, or `k` is out of range.
    OverflowError
        If values are not finite or too large.
    """
    gallery = patches if isinstance(patches, PreparedGallery) else prepare(patches, per_image)
    _check(queries, gallery, images, per_image, k)
    queries, images = queries.contiguous(), images.contiguous()
    batch, n, _ = queries.shape
    distances = queries.new_empty(batch, n, k)
    ids = images.new_empty(batch, n, k)
    parts = list(_parts(batch, n, images.shape[1] * gallery.groups))
    # Four numbers apart, since kernels are compiled anew for another alignment. The first counts
    # queries that are no numbers, the others the pairs of each part.
    counts = torch.zeros(1 + len(parts), 4, dtype=torch.int32, device=queries.device)
    space = _Space(
        max((i.stop - i.start) * (q.stop - q.start) for i, q in parts)
        * images.shape[1]
        * gallery.groups,
        queries.device,
    )
    best = images.new_empty(batch, n)

    def search(number: int, careful: bool) -> None:
        items, some = parts[number]
        part = _Part.make(
            queries[items, some].contiguous(),
            gallery,
            images[items],
            space,
            best[items, some],
            counts[0, :1],
        )
        count = counts[1 + number, :1]
        if k == 1:
            _nearest(part, gallery, space, count, careful)
        else:
            distances[items, some], ids[items, some] = _k_nearest(
                part, gallery, space, count, k, careful
            )

    with _on(queries.device):
        for number in range(len(parts)):
            search(number, careful=False)
        found = _unpacked(best) if k == 1 else (distances, ids)
        # The GPU is waited for once, when all is under way.
        bad, *pairs = counts[:, 0].tolist()
        if bad:
            raise OverflowError(_TOO_LARGE.format("queries"))
        again = [number for number, count in enumerate(pairs) if count > _PAIRS]
        for number in again:
            search(number, careful=True)
        return _unpacked(best) if again and k == 1 else found


def _unpacked(best: Tensor) -> tuple[Tensor, Tensor]:
    """Return distances and rows [..., 1] of what `kernels.rescore` left."""
    distances = (best >> 32).to(torch.int32).view(torch.float32)
    return distances[..., None], (best & 0x7FFFFFFF)[..., None]


def _check(
    queries: Tensor, gallery: PreparedGallery, images: Tensor, per_image: int, k: int
) -> None:
    c = gallery.patches.shape[1]
    if queries.ndim != 3 or 0 in queries.shape or queries.dtype != torch.float32:
        raise ValueError(
            f"queries are {queries.dtype} {list(queries.shape)}; pass float32 [B, Q, C]"
        )
    if queries.shape[2] != c:
        raise ValueError(f"queries have {queries.shape[2]} channels and the gallery has {c}")
    if queries.device != gallery.patches.device:
        raise ValueError(
            f"queries are on {queries.device} and the gallery is on {gallery.patches.device}"
        )
    if images.ndim != 2 or len(images) != len(queries) or images.shape[1] == 0:
        raise ValueError(f"images have shape {list(images.shape)}; pass [{len(queries)}, K]")
    if per_image != gallery.per_image:
        raise ValueError(
            f"the gallery was prepared with {gallery.per_image} patches an image, not {per_image}"
        )
    last = gallery.images - 1
    here = images.shape[1] * per_image
    missing = gallery.images * per_image - len(gallery.patches)
    if here - missing < k <= here and (images == last).any():
        here -= missing
    if not 1 <= k <= here:
        raise ValueError(f"k = {k} must lie between 1 and {here} patches")


def _parts(batch: int, n: int, groups: int) -> Iterator[tuple[slice, slice]]:
    """Cut a batch into slices of items and of queries whose bounds fit in memory."""
    fitting = min(_MAXIMA // 4 // groups, _PAIRS)
    if fitting >= n:
        step = min(fitting // n, 65535)
        for at in range(0, batch, step):
            yield slice(at, min(at + step, batch)), slice(0, n)
        return
    step = max(fitting // 128, 1) * 128
    for item in range(batch):
        for at in range(0, n, step):
            yield slice(item, item + 1), slice(at, min(at + step, n))


class _Space:
    """Memory that all parts use in turn."""

    def __init__(self, bounds: int, device: torch.device) -> None:
        self.upper = torch.empty(bounds, device=device)
        self.who = torch.empty(_PAIRS, dtype=torch.int32, device=device)
        self.where = torch.empty_like(self.who)


@dataclass(frozen=True)
class _Part:
    """Queries with their bounds.

    Attributes
    ----------
    queries : float32 [b, q, C]
    low : float16 [b * q, channels]
    stats : float32 [4, b * q], as `kernels.lower` leaves them
    images : int64 [b, K]
    upper : float32 [b, K * groups, q]
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

    @classmethod
    def make(
        cls,
        queries: Tensor,
        gallery: PreparedGallery,
        images: Tensor,
        space: _Space,
        best: Tensor,
        bad: Tensor,
    ) -> _Part:
        b, n, c = queries.shape
        low = torch.empty(b * n, gallery.channels, dtype=torch.float16, device=queries.device)
        floor = torch.empty(b, n, device=queries.device)
        stats = _lower(
            queries.view(b * n, c), gallery.centre, gallery.scale, low, (floor, best, bad)
        )
        k = images.shape[1]
        shape = (b, k * gallery.groups, n)
        upper = space.upper[: math.prod(shape)].view(shape)
        processors = _multiprocessors(queries.device)

        def grid(tile: dict[str, Any]) -> tuple[int, int, int]:
            tiles = triton.cdiv(n, tile["QUERIES"])
            return tiles, b, _sections(tiles * b, k, processors)

        _screen(
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
            _gamma(c) / 2,
            CHANNELS=gallery.channels,
            STRIDE=_STRIDE,
            FOLD=gallery.fold,
        )
        return cls(queries, low, stats, images, upper, floor, best)


@cache
def _sections(tiles: int, images: int, processors: int) -> int:
    """Return into how many sections to cut the images, so that all processors end together.

    Each has one program at a time; a program takes `images / sections` and, to begin, as long as
    for a tenth of an image.
    """

    def time(sections: int) -> float:
        return -(-tiles * sections // processors) * (-(-images // sections) + 0.1)

    return min(range(1, min(images, 65535) + 1), key=time)


def _nearest(
    part: _Part, gallery: PreparedGallery, space: _Space, count: Tensor, careful: bool
) -> None:
    """Find the nearest row of each query."""
    for first, last in _windows(part, careful):
        # The first count is kept for the caller to see.
        listed = count if not careful else torch.zeros_like(count)
        _collect(part, part.floor, space, listed, first, last)
        _rescore(part, gallery, part.floor, space, listed)


def _k_nearest(
    part: _Part, gallery: PreparedGallery, space: _Space, count: Tensor, k: int, careful: bool
) -> tuple[Tensor, Tensor]:
    """Find the `k` nearest rows of each query, [b, q, k] both."""
    b, n, _ = part.queries.shape
    floor = _kth_floor(part, gallery, k)
    near = torch.full((b * n, k), torch.inf, device=part.queries.device)
    ids = torch.full((b * n, k), 2**31, dtype=torch.int64, device=part.queries.device)
    for first, last in _windows(part, careful):
        listed = count if not careful else torch.zeros_like(count)
        _collect(part, floor, space, listed, first, last)
        pairs = int(listed)
        if pairs > _PAIRS:
            break
        found = torch.empty(pairs, gallery.members, device=near.device)
        kth = near[:, -1].contiguous()
        _rescore(part, gallery, floor, space, listed, (kth, found))
        pair, member = (found >= 0).nonzero(as_tuple=True)
        who, where = space.who[pair].long(), space.where[pair].long()
        image = part.images[who // n, where // gallery.groups]
        offset = (
            member // gallery.fold * _STRIDE
            + where % gallery.groups * gallery.fold
            + member % gallery.fold
        )
        rows = image * gallery.per_image + offset
        near, ids = _merge(near, ids, who, found[pair, member], rows)
    return near.view(b, n, k), ids.view(b, n, k)


def _kth_floor(part: _Part, gallery: PreparedGallery, k: int) -> Tensor:
    """Return [b, q] what the k-th best score is at least.

    The k best groups hold k rows, each of which scores its group's lower bound or more.
    """
    b, total, n = part.upper.shape
    if k > total:
        return torch.full((b, n), -torch.inf, device=part.upper.device)
    upper, at = part.upper.topk(k, 1)
    image = part.images.gather(1, (at // gallery.groups).view(b, -1)).view_as(at)
    reach = gallery.reach[image, at % gallery.groups]
    slack = gallery.slack[image, at % gallery.groups]
    norm, rounding, unit, _ = part.stats.view(4, b, 1, n)
    half_gamma = _gamma(part.queries.shape[2]) / 2
    error = rounding * reach + (norm + rounding) * slack + unit * half_gamma * reach.square()
    lower: Tensor = upper - 2 * error
    return lower.amin(1)


def _merge(
    near: Tensor, ids: Tensor, who: Tensor, distances: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Take more candidates into the nearest rows [n, k] found so far."""
    n, k = near.shape
    owner = torch.cat([torch.arange(n, device=near.device).repeat_interleave(k), who])
    distances = torch.cat([near.view(-1), distances])
    rows = torch.cat([ids.view(-1), rows])
    order = rows.argsort()
    for key in (distances, owner):
        order = order[key[order].argsort(stable=True)]
    starts = torch.searchsorted(owner[order], torch.arange(n, device=near.device))
    chosen = order[starts[:, None] + torch.arange(k, device=near.device)]
    return distances[chosen], rows[chosen]


def _windows(part: _Part, careful: bool) -> Iterator[tuple[int, int]]:
    """Yield ranges of groups: all, or few enough that their pairs fit whatever is left of them."""
    b, total, n = part.upper.shape
    step = max(1, _PAIRS // (b * n)) if careful else total
    for first in range(0, total, step):
        yield first, min(first + step, total)


def _collect(
    part: _Part, floor: Tensor, space: _Space, count: Tensor, first: int, last: int
) -> None:
    b, total, n = part.upper.shape
    queries, groups = 128, 64
    kernels.collect[triton.cdiv(n, queries), b, triton.cdiv(last - first, groups)](
        part.upper,
        floor,
        space.who,
        space.where,
        count,
        n,
        total,
        first,
        last,
        _PAIRS,
        QUERIES=queries,
        GROUPS=groups,
        num_warps=8,
    )


def _rescore(
    part: _Part,
    gallery: PreparedGallery,
    floor: Tensor,
    space: _Space,
    count: Tensor,
    more: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Lower the part's best distances or, for `more` than one row, fill the kernel's `found`."""
    b, n, c = part.queries.shape
    near, found = more or (floor, floor)
    # Of one warp each, and so many that while some wait for memory others do not.
    programs = 3 if _interpreted() else 48 * _multiprocessors(part.queries.device)
    kernels.rescore[(programs,)](
        space.who,
        space.where,
        count,
        _PAIRS,
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
        _gamma(c) / 2,
        gallery.scale**2,
        CHANNELS=gallery.channels,
        STRIDE=_STRIDE,
        FOLD=gallery.fold,
        CHUNK=_GROUP,
        BLOCK=min(gallery.channels, 64),
        ONE=more is None,
        num_warps=1,
    )


def _lower(
    values: Tensor,
    centre: Tensor,
    scale: float,
    low: Tensor,
    queries: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """Fill `low` and return what `kernels.lower` finds; of queries also floor, best and bad."""
    n, c = values.shape
    stats = torch.empty(4, n, device=values.device)
    rows = 16
    floor, best, bad = queries or (stats, stats, stats)
    kernels.lower[(triton.cdiv(n, rows),)](
        values,
        centre,
        low,
        stats,
        floor,
        best,
        bad,
        n,
        c,
        scale,
        _limit(c) * scale,
        1 + _tau(c),
        CHANNELS=low.shape[1],
        BLOCK=min(low.shape[1], _BLOCK),
        ROWS=rows,
        FIT=queries is not None,
    )
    return stats


def _limit(channels: int) -> float:
    """Return what all channels must be below, so that no square overflows."""
    return 2.0**60 / math.sqrt(channels)


def _tau(channels: int) -> float:
    return (channels + 16) * 2.0**-21


def _gamma(channels: int) -> float:
    return (channels + 16) * 2.0**-22


def _filled_up(channels: int) -> int:
    """Return the channels of a row in float16: a power of two up to 256, or many blocks."""
    if channels <= _WHOLE:
        return max(16, 1 << (channels - 1).bit_length())
    return -(-channels // _BLOCK) * _BLOCK


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _configs() -> list[Any]:
    """Return the tiles that the first search of a kind chooses from, by trying them.

    BLOCK = 0 stands for whole rows. What does not fit a device's shared memory is passed over;
    the last fits them all.
    """
    tiles = [
        (256, 64, 0, 8, 3),
        (128, 64, 0, 8, 3),
        (128, 256, 64, 8, 3),
        (128, 128, 64, 8, 4),
        (64, 128, 64, 4, 4),
        (64, 64, 32, 4, 3),
    ]
    return [
        triton.Config({"QUERIES": q, "ROWS": r, "BLOCK": b}, num_warps=warps, num_stages=stages)
        for q, r, b, warps, stages in tiles
    ]


def _fitting(configs: list[Any], arguments: dict[str, Any], **options: Any) -> list[Any]:
    """Keep the tiles that suit a gallery's channels."""
    channels = {**arguments, **options}["CHANNELS"]
    kept = []
    for config in configs:
        block = config.kwargs["BLOCK"]
        if block == 0 and channels <= _WHOLE:
            kwargs = config.kwargs | {"BLOCK": channels}
            kept.append(
                triton.Config(kwargs, num_warps=config.num_warps, num_stages=config.num_stages)
            )
        elif 0 < block < channels:
            kept.append(config)
    return kept


def _tuned() -> Any:
    options: dict[str, Any] = {}
    if "cache_results" in inspect.signature(triton.autotune).parameters:
        options["cache_results"] = True  # on disk, beside the compiled kernels
    return triton.autotune(
        _configs(),
        key=["CHANNELS", "FOLD"],
        prune_configs_by={"early_config_prune": _fitting},
        **options,
    )(kernels.screen)


_AUTOTUNED = None if _interpreted() else _tuned()


def _screen(grid: Any, *arguments: Any, **options: Any) -> None:
    if _AUTOTUNED is None:
        block = min(options["CHANNELS"], 64)
        kernels.screen[grid](*arguments, **options, QUERIES=32, ROWS=64, BLOCK=block)
    else:
        _AUTOTUNED[grid](*arguments, **options)
