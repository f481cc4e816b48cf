"""Exact nearest neighbours by one product in float32, where the scores of all pairs can be held.

As |x - y|² = |x|² - 2s with the score s = x·y - |y|²/2, the nearest row has the largest. What is
computed is off by γ(|x||y| + |y|²/2) at most, with γ = (C + 8) 2⁻²³ at least twice what the sums
can lose. So a row of which the score is lower than the best by more than twice that is no nearer,
and the few others are compared by differences.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from .pairs import Floats, Ids, gamma, least_of_each, norms, pair_distances
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
    scores, tops, halves = zip(*side_by_side(partial(_score, queries, k), parts), strict=True)
    top = torch.cat(tops, 1)
    best = top.amax(1) if k == 1 else top.topk(k).values[:, -1]
    half = torch.stack(halves).amax()
    norm = norms(queries)
    if not bool((norm.amax() < LARGEST_NORM) & (half < LARGEST_NORM**2 / 2)):
        return None
    doubt = gamma(c) * (norm * (2 * half).sqrt() + half)
    least = (best - 2 * doubt - TINY)[:, None]
    most = int(q * max(2 * k, len(gallery) * _MANY))
    firsts = np.cumsum([0, *map(len, parts[:-1])])
    who, near, rows = map(np.concatenate, zip(*side_by_side(
        partial(_compare, queries, gallery, least, most), firsts, scores), strict=True))
    if len(who) > most:
        return None
    distances, ids = least_of_each(np.arange(q), who, near, rows, k)
    return torch.from_numpy(distances), torch.from_numpy(ids)


def _score(queries: Tensor, k: int, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return all scores [Q, rows], the largest [Q, at most k], and the largest |y|²/2."""
    half = torch.linalg.vector_norm(rows, dim=1).square_().div_(2)
    scores = torch.addmm(half, queries, rows.T, beta=-1)
    top = scores.amax(1, keepdim=True) if k == 1 else scores.topk(min(k, len(rows))).values
    return scores, top, half.amax()


def _compare(
    queries: Tensor, gallery: Tensor, least: Tensor, most: int, first: int, scores: Tensor
) -> tuple[Ids, Floats, Ids]:
    """Return the queries, distances and rows of scores not under the query's `least`, [Q, 1].

    The scores are those of the rows from `first` on. Of more than `most`, no distances.
    """
    places = np.flatnonzero((scores >= least).numpy())
    who, rows = np.divmod(places, scores.shape[1])
    rows += first
    if len(who) > most:
        return who, np.empty(0, np.float32), rows
    near = pair_distances(queries, torch.from_numpy(who), gallery, torch.from_numpy(rows))
    return who, near.numpy(), rows


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
