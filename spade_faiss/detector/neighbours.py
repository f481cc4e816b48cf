"""Good images among each other: copies of one part, and each one's nearest others."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..index import Index
from ..search import LevelSearch, between_images, nearest
from ..types import Floats, Ids
from ..verdict.copies import CANDIDATES, Copies, find_copies, from_pairs

_PARTS = 16
"""Parts of an image, at most, that are looked at for it."""
_FEWEST = 16
"""Patches of a region that a level must have to tell parts from each other, if any level does."""
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
    if n < 3:
        return (np.empty(0, np.int64),) * n
    whole = index.descriptors.reshape(n, index.parts, -1).mean(1)
    near, _ = _nearest_others(whole, min(CANDIDATES, n - 1), np.arange(n))
    seen = len(index.levels) - index.manifest.motion
    layouts = index.layouts[: seen // (2 if index.manifest.averaged else 1)]
    number = max(
        (at for at, one in enumerate(layouts) if one.looked_at is None or one.patches >= _FEWEST),
        default=0,
    )
    rows, layout = index.levels[number], layouts[number]
    patches = layout.patches
    # What is not looked at is alike in all images. Parts of which little else is stored say little.
    counted = [layout.counted(part) for part in range(index.parts)]
    full = [part for part, own in enumerate(counted) if 2 * own.sum() >= patches]
    chosen = np.unique(np.linspace(0, len(full) - 1, _PARTS).round().astype(int)).tolist()
    distances, gallery = np.empty(near.shape, np.float32), LevelSearch(rows, patches)
    for i, others in enumerate(near):
        found = []
        for part in (full[at] for at in chosen):
            unit = i * index.parts + part
            own = rows[unit * patches : (unit + 1) * patches].astype(np.float32)
            own = own[counted[part]]
            # Of patches that lie in no rectangle, those of a square that most of them fill.
            shape = layout.part if layout.looked_at is None else (math.isqrt(len(own)),) * 2
            grid = torch.from_numpy(own[: math.prod(shape)]).reshape(*shape, -1)
            found.append(
                between_images(grid, gallery, torch.from_numpy(others * index.parts + part))
            )
        distances[i] = torch.stack(found).median(0).values
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


def other_units(index: Index, k: int, images: Ids, *, elsewhere: bool) -> tuple[list[Ids], Floats]:
    """Return what each part of some training images is compared with, and the images' scores.

    Parameters
    ----------
    index : Index
    k : int
        Units, at most: other images that show other parts, or tiles of these.
    images : int64 [m]
    elsewhere : bool
        Whether a tile is compared with tiles of any place, and not with those of its own.

    Returns
    -------
    units : list of int64 [parts, K], m long
    scores : float32 [m]
        As `other_images` gives them, the largest of an image's parts.
    """
    parts, descriptors, copies = index.parts, index.descriptors, copies_in(index)
    if not elsewhere:
        found = [
            other_images(np.ascontiguousarray(descriptors[part::parts]), k, copies, images)
            for part in range(parts)
        ]
        units = [
            np.stack([others[at] * parts + part for part, (others, _) in enumerate(found)])
            for at in range(len(images))
        ]
        return units, np.max([scores for _, scores in found], axis=0)
    if len(index) < 2:
        return [np.empty((parts, 0), np.int64)], np.zeros(len(images), np.float32)
    own = np.arange(parts)
    left_out = [  # its copies, unless nothing else is there: better a copy than nothing
        np.append(some if len(some) < len(index) - 1 else [], i).astype(np.int64)
        for i, some in enumerate(copies)
    ]
    of_images = [(some[:, None] * parts + own).ravel() for some in left_out]
    same = tuple(of_images[unit // parts] for unit in range(len(descriptors)))
    others, scores = other_images(descriptors, k, same, (images[:, None] * parts + own).ravel())
    return [
        np.stack(others[at * parts : (at + 1) * parts]) for at in range(len(images))
    ], scores.reshape(len(images), parts).max(1)


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
