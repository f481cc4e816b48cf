"""Exact nearest neighbours by one product, where the distances of all pairs can be held.

FAISS expands |x - y|² into norms and a product in float32, which is off by e = γ(|x| + |y|)² at
most, with γ = (C + 8) 2⁻²³ at least twice what the sums can lose. So a row that exceeds the least
by more than 2e is no nearer, and the few others are compared by differences.

The norms of rows need no pass of their own, for with the product's distance d² of any query x

    |y| ≤ |x| + |x - y| ≤ |x| + d + √γ(|x| + |y|),  so  |y| (1 - √γ) ≤ |x| (1 + √γ) + d.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch
from torch import Tensor

from .._support.faiss import faiss
from .pairs import gamma, least_of_each, norms, pair_distances, pairs_where
from .screen import LARGEST_NORM, TINY

HELD = 1 << 23
"""Distances that are held, at the most."""
_MANY = 1 / 64
"""Share of the pairs that are too many to be compared by differences."""


def by_product(queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """Return the `k` rows nearest to each query, or None where the product does not settle it.

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
    (q, c), g, module = queries.shape, len(gallery), faiss()
    sizes = norms(queries).numpy()
    if not sizes.max() < LARGEST_NORM:
        return None
    x, y = (rows.contiguous().numpy() for rows in (queries, gallery))  # FAISS keeps none alive
    near = np.empty((q, g), np.float32)
    module.pairwise_L2sqr(c, q, module.swig_ptr(x), g, module.swig_ptr(y), module.swig_ptr(near))
    short = sizes.argmin()
    farthest = near[short].max()
    if not farthest < LARGEST_NORM**2:
        return None
    root = sqrt(gamma(c))
    largest = (sizes[short] * (1 + root) + sqrt(max(farthest, 0))) / (1 - root)
    doubt = 2 * (gamma(c) * (sizes + largest) ** 2 + TINY)
    every = np.arange(q)
    if k == 1:  # the others are looked at where the second is close
        first = near.argmin(1)
        limit = near[every, first] + doubt
        near[every, first] = np.inf
        some = np.flatnonzero(near.min(1) <= limit)
    else:
        first = np.empty(0, np.int64)
        limit = np.partition(near, k - 1)[:, k - 1] + doubt
        some = every
    who, rows = pairs_where((near if len(some) == q else near[some]) <= limit[some, None])
    if len(who) > q * max(2 * k, g * _MANY):
        return None
    who = np.concatenate([every[: len(first)], some[who]])
    rows = np.concatenate([first, rows])
    exact = pair_distances(queries, torch.from_numpy(who), gallery, torch.from_numpy(rows))
    distances, ids = least_of_each(every, who, exact.numpy(), rows, k)
    return torch.from_numpy(distances), torch.from_numpy(ids)
