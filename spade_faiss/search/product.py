"""Exact nearest neighbours by one product in float32, where the scores of all pairs can be held.

As |x - y|² = |x|² - 2s with the score s = x·y - |y|²/2, the nearest row has the largest. What is
computed is off by γ(|x||y| + |y|²/2) at most, with γ = (C + 8) 2⁻²³ at least twice what the sums
can lose. So a row of which the score is lower than the best by more than twice that is no nearer,
and the few others are compared by differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .pairs import Ids, least_of_each, pair_distances
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
    run: Callable[..., Iterable[Any]] = map
    parts: Sequence[Tensor] = [gallery]
    if q * gallery.numel() > _ALONE:
        run, parts = side_by_side, gallery.tensor_split(torch.get_num_threads())
    scored = [*run(partial(_scores, queries, k), parts)]
    tops = torch.cat([top for _, top, _ in scored], 1)
    best = tops.amax(1) if k == 1 else tops.topk(k).values[:, -1]
    half = torch.stack([most for *_, most in scored]).amax()
    norm = torch.linalg.vector_norm(queries, dim=1)
    if not bool((norm.amax() < LARGEST_NORM) & (half < LARGEST_NORM**2 / 2)):
        return None
    doubt = (c + 8) * 2.0**-23 * (norm * (2 * half).sqrt() + half)
    least = (best - 2 * doubt - TINY)[:, None]
    who, rows = [], []
    for first, (some, inside) in zip(
        np.cumsum([0, *map(len, parts)]), run(lambda one: _reach(one[0], least), scored),
        strict=False,
    ):
        who.append(some)
        rows.append(inside + first)
    pairs = np.concatenate(who), np.concatenate(rows)
    if len(pairs[0]) > q * max(2 * k, len(gallery) * _MANY):
        return None
    near = pair_distances(queries, torch.from_numpy(pairs[0]), gallery, torch.from_numpy(pairs[1]))
    _, distances, ids = least_of_each(pairs[0], near.numpy(), pairs[1], k)
    return torch.from_numpy(distances), torch.from_numpy(ids)


def _scores(queries: Tensor, k: int, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return all scores [Q, rows], the largest [Q, at most k], and the largest |y|²/2."""
    half = torch.linalg.vector_norm(rows, dim=1).square_().div_(2)
    scores = torch.addmm(half, queries, rows.T, beta=-1)
    top = scores.amax(1, keepdim=True) if k == 1 else scores.topk(min(k, len(rows))).values
    return scores, top, half.amax()


def _reach(scores: Tensor, least: Tensor) -> tuple[Ids, Ids]:
    """Return the queries and the rows whose scores are not under the query's `least`, [Q, 1]."""
    places = np.flatnonzero((scores >= least).numpy())
    return np.divmod(places, scores.shape[1])


def keeps_float32() -> bool:
    """Say whether products of float32 are computed in float32, as all bounds here assume.

    Asked for less (`torch.set_float32_matmul_precision("medium")`), processors with AMX round to
    bfloat16 first.
    """
    rows = torch.full((_ROWS, _ROWS), 1 + 2.0**-12)
    product = torch.mm(rows, torch.ones(_ROWS, _ROWS))
    return bool((product == _ROWS * rows).all())
