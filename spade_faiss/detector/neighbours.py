"""Good images among each other: copies of one part, and each one's nearest others."""

from __future__ import annotations

import numpy as np
import torch

from ..index import Index
from ..search import between_images, nearest
from ..types import Floats, Ids
from ..verdict.copies import CANDIDATES, Copies, find_copies, from_pairs

_QUERIES = 4096
"""Training images whose neighbours are sought at once."""


def copies_in(index: Index) -> Copies:
    """Return for each training image the others that show the same part, as the index says.

    Where it names none, its descriptors and its coarsest level tell: an older version never looked.
    """
    if index.copies is None:
        index.copies = _copies_in(index)
    return index.copies


def _copies_in(index: Index) -> Copies:
    n = len(index)
    if index.manifest.copies:
        return from_pairs(index.manifest.copies, n)
    near, _ = _nearest_others(index.descriptors, min(CANDIDATES, n - 1), np.arange(n))
    if n < 3:
        return (np.empty(0, np.int64),) * n
    seen = len(index.levels) - index.manifest.motion
    number = seen // (2 if index.manifest.averaged else 1) - 1
    level = index.manifest.levels[number]
    rows = index.levels[number]
    distances = np.empty(near.shape, np.float32)
    for i, others in enumerate(near):
        own = torch.tensor(index.rows(number, i, i + 1)).reshape(level.height, level.width, -1)
        there = [rows[j * level.patches : (j + 1) * level.patches] for j in others.tolist()]
        distances[i] = between_images(own, torch.tensor(np.stack(there).astype(np.float32)))
    return find_copies(distances, near)


def other_images(
    descriptors: Floats, k: int, copies: Copies, images: Ids | None = None
) -> tuple[list[Ids], Floats]:
    """Return each image's nearest others that show other parts, and its score against them.

    Parameters
    ----------
    descriptors : float32 [n, D]
    k : int
        Others, at most.
    copies : tuple of int64 arrays, n long
        See `spade_faiss.verdict.copies`.
    images : int64 [m], optional
        Those to do; by default all.

    Returns
    -------
    others : list of int64 arrays, m long
    scores : float32 [m]
        The mean squared distance to the descriptors of these; 0 where there are none.
    """
    images = np.arange(len(descriptors)) if images is None else images
    spare = max((len(copies[i]) for i in images.tolist()), default=0)
    found, distances = _nearest_others(descriptors, min(k + spare, len(descriptors) - 1), images)
    others, scores = [], np.zeros(len(images), np.float32)
    for at, i in enumerate(images.tolist()):
        kept = np.flatnonzero(~np.isin(found[at], copies[i]))[:k]
        if not len(kept):  # nothing else is there: better a copy than nothing
            kept = np.arange(min(k, found.shape[1]))
        others.append(found[at, kept])
        scores[at] = distances[at, kept].mean() if len(kept) else 0
    return others, scores


def _nearest_others(descriptors: Floats, k: int, images: Ids) -> tuple[Ids, Floats]:
    """Return the `k` nearest other images of some, and their squared distances, both [m, k]."""
    ids = np.empty((len(images), k), np.int64)
    distances = np.empty((len(images), k), np.float32)
    for start in range(0, len(images) if k > 0 else 0, _QUERIES):
        here = images[start : start + _QUERIES]
        near, found = nearest(descriptors[here], descriptors, k + 1)
        other = found != here[:, None]
        # Among exact duplicates an image may miss itself: then the farthest goes.
        other[other.all(axis=1), -1] = False
        ids[start : start + _QUERIES] = found[other].reshape(-1, k)
        distances[start : start + _QUERIES] = near[other].reshape(-1, k)
    return ids, distances
