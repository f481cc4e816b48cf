"""Distances of pairs of rows by their differences, of which cancellation takes nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from .._support.faiss import faiss

_GATHERED = 1 << 20
"""Bytes of rows that are gathered at a time where FAISS cannot read them in their place."""


def gamma(channels: int) -> float:
    """Return at least twice what a sum in float32 over the channels can lose, of its size."""
    return (channels + 8) * 2.0**-23


def norms(rows: Tensor) -> Tensor:
    """Return the norms of float32 rows."""
    found = torch.empty(len(rows), device=rows.device)
    if rows.is_cuda:
        torch.linalg.vector_norm(rows, dim=1, out=found)
        return found
    module = faiss()
    lie = [one.contiguous().numpy() for one in (found, rows)]
    module.fvec_norms_L2(*map(module.swig_ptr, lie), rows.shape[1], len(rows))
    return found


def pair_distances(queries: Tensor, who: Tensor, gallery: Tensor, rows: Tensor) -> Tensor:
    """Return |queries[who] - gallery[rows]|².

    FAISS reads float32 rows on the CPU where they lie; others are gathered a few at a time.

    Parameters
    ----------
    queries : float32 [Q, C]
    who : int64 [n]
    gallery : float32 or float16 [rows, C], on the queries' device
    rows : int64 [n]

    Returns
    -------
    float32 [n]
    """
    distances = torch.empty(len(rows), device=queries.device)
    if not queries.is_cuda and gallery.dtype == torch.float32:
        module, (n, c) = faiss(), (len(rows), gallery.shape[1])
        lie = [one.contiguous().numpy() for one in (queries, who, gallery, rows, distances)]
        module.pairwise_indexed_L2sqr(c, n, *map(module.swig_ptr, lie))
        return distances
    step = max(1, _GATHERED // (4 * gallery.shape[1]))
    for at in range(0, len(rows), step):
        part = slice(at, at + step)
        gap = gallery[rows[part]].float().sub_(queries[who[part]])
        distances[part] = gap.square_().sum(1)
    return distances
