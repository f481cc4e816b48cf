"""Exact nearest neighbours by one product in float32, where the scores of all pairs can be held.

As |x - y|² = |x|² - 2s with the score s = x·y - |y|²/2, the nearest row has the largest. What is
computed is off by γ(|x||y| + |y|²/2) at most, with γ = (C + 8) 2⁻²³ at least twice what the sums
can lose. So a row of which the score is lower than the best by more than twice that is no nearer,
and the few others are compared by differences.
"""

from __future__ import annotations

from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .pairs import Floats, Ids, least_of_each, pair_distances
from .screen import LARGEST_NORM, TINY
from .threads import side_by_side

HELD = 1 << 23
"""Scores that are held, at the most."""
_MANY = 1 / 64
"""Share of the pairs that are too many to be compared by differences."""
_ROWS = 32
"""Of a product that shows how products are computed."""
_ALONE = 1 << 25
"""Multiplications that are not worth waking threads for."""


def by_product(queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """Return the `k` rows nearest to each query, or None where scores do not settle it.

    That is where norms are large and distances small, and where values are not finite.

    Parameters
    ----------
    queries : float32 [Q, C], on the CPU
    gallery : float32 [G, C]
    k : int

    Returns
    -------
    distances : float32 [Q, k], squared Euclidean, ascending
    ids : int64 [Q, k]
    """
    q, c = queries.shape
    threads = torch.get_num_threads()
    if threads > 1 and q * gallery.numel() <= _ALONE:
        # Where torch has several threads, even a small product waits for those that sleep.
        found: list[tuple[Tensor, Tensor] | None] = side_by_side(
            by_product, [queries], [gallery], [k])
        return found[0]
    parts = gallery.tensor_split(min(threads, len(gallery)))
    scored = side_by_side(partial(_score, queries, k), parts)
    tops = torch.cat([one.top for one in scored], 1)
    best = tops.amax(1) if k == 1 else tops.topk(k).values[:, -1]
    half = torch.stack([one.half for one in scored]).amax()
    norm = scored[0].norm
    if not bool((norm.amax() < LARGEST_NORM) & (half < LARGEST_NORM**2 / 2)):
        return None
    doubt = (c + 8) * 2.0**-23 * (norm * (2 * half).sqrt() + half)
    least = (best - 2 * doubt - TINY)[:, None]
    most = int(q * max(2 * k, len(gallery) * _MANY))
    compared = side_by_side(partial(_compare, queries, least, most), parts, scored)
    if sum(len(who) for who, *_ in compared) > most:
        return None
    firsts = np.cumsum([0, *map(len, parts)])
    who, near, rows = (np.concatenate(values) for values in zip(*(
        (who, near, rows + first)
        for first, (who, near, rows) in zip(firsts, compared, strict=False)
    ), strict=True))
    _, distances, ids = least_of_each(who, near, rows, k)
    return torch.from_numpy(distances), torch.from_numpy(ids)


class _Scored(NamedTuple):
    """All scores [Q, rows], the largest [Q, at most k], |x| [Q], and the largest |y|²/2."""

    scores: Tensor
    top: Tensor
    norm: Tensor
    half: Tensor


def _score(queries: Tensor, k: int, rows: Tensor) -> _Scored:
    half = torch.linalg.vector_norm(rows, dim=1).square_().div_(2)
    scores = torch.addmm(half, queries, rows.T, beta=-1)
    top = scores.amax(1, keepdim=True) if k == 1 else scores.topk(min(k, len(rows))).values
    return _Scored(scores, top, torch.linalg.vector_norm(queries, dim=1), half.amax())


def _compare(
    queries: Tensor, least: Tensor, most: int, rows: Tensor, scored: _Scored
) -> tuple[Ids, Floats, Ids]:
    """Return the queries, distances and rows of scores not under the query's `least`, [Q, 1].

    Of more than `most`, no distances.
    """
    places = np.flatnonzero((scored.scores >= least).numpy())
    who, inside = np.divmod(places, len(rows))
    if len(who) > most:
        return who, np.empty(0, np.float32), inside
    near = pair_distances(queries, torch.from_numpy(who), rows, torch.from_numpy(inside))
    return who, near.numpy(), inside


def keeps_float32() -> bool:
    """Say whether products of float32 are computed in float32, as all bounds here assume.

    Asked for less (`torch.set_float32_matmul_precision("medium")`), processors with AMX round to
    bfloat16 first.
    """
    backends = torch.backends
    try:
        asked = torch.get_float32_matmul_precision()
    except RuntimeError:  # what was asked for is not the same everywhere
        asked = ""
    return _keeps_float32(asked, *(getattr(one, "fp32_precision", "") for one in (
        backends, backends.mkldnn, getattr(backends.mkldnn, "matmul", None))))


@cache
def _keeps_float32(*asked: str) -> bool:
    rows = torch.full((_ROWS, _ROWS), 1 + 2.0**-12)
    return bool((torch.mm(rows, torch.ones(_ROWS, _ROWS)) == _ROWS * rows).all())
