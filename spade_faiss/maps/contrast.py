"""Local normalisation: judge a patch's distance by how far good patches there are from each other.

Where good parts vary much, every patch is far from its match; where they vary little, a small
distance tells of a flaw already. So from a patch's distance is taken a share of what is normal
where its match lies: the distance to the nearest patch of the other good images, averaged over the
match and the patches around it, since one such distance is a matter of chance. The rest is told in
units of what is normal at that level, so that each level counts alike. This is not in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from ..index.layout import Layout
from ..types import Doubles, Floats, Ids

SHARE = 0.7
"""The part of the normal distance that is taken off."""
AROUND = 1
"""Patches on each side of a match whose normal distances count with its own."""
NEAREST = 5
"""Patches among which the nearest one of a second image is sought."""


def normal_distances(distances: Floats, images: Ids, copies: Sequence[Ids]) -> Floats:
    """Return the normal distances of good patches, out of their nearest in other good images.

    Parameters
    ----------
    distances : float32 [Q, k], ascending
    images : int64 [Q, k]
        The images that these patches are of.
    copies : sequence of int64 arrays
        For each good image, the others that show the same part.

    Returns
    -------
    float32 [Q, 3]
        The nearest patch's distance; that patch's image; and the distance of the nearest patch
        of any image but that one and its copies, or if none is among the k, the k-th distance,
        which is less.
    """
    second = images != images[:, :1]
    for first in np.unique(images[:, 0]).tolist():
        if len(copies[first]):
            rows = np.flatnonzero(images[:, 0] == first)
            second[rows] &= ~np.isin(images[rows], copies[first])
    at = np.where(second.any(1), second.argmax(1), images.shape[1] - 1)
    there = np.take_along_axis(distances, at[:, None], 1)[:, 0]
    return np.stack([distances[:, 0], images[:, 0].astype(np.float32), there], 1)


def contrast_unit(normal: Floats, weights: Doubles) -> float:
    """Return the mean normal distance of a level's patches, or 1 where that is 0.

    Parameters
    ----------
    normal : float32 [rows, 3]
    weights : float64 [n]
        For how many independent images each image stands.
    """
    of_images = normal[:, 0].reshape(len(weights), -1).mean(1, dtype=np.float64)
    return float(np.average(of_images, weights=weights)) or 1.0


def contrast(
    distances: Floats,
    matches: Ids,
    normal: Floats,
    layout: Layout,
    *,
    share: float = SHARE,
    around: int = AROUND,
    unit: float = 1.0,
    without: Sequence[int] = (),
) -> Floats:
    """Return distances less a share of what is normal where their matches lie, 0 or more.

    Parameters
    ----------
    distances : float32 [...]
    matches : int64 [...]
        Rows of `normal`.
    normal : float32 [rows, 3]
        See `normal_distances`.
    layout : Layout
        Of the level that the rows are of.
    share : float, 0 to 1
    around : int
        Patches on each side of a match that count with it; beyond the border, those at it again,
        and where none is stored, the match itself.
    unit : float
        What the result is divided by.
    without : sequence of int
        A good image that is judged as if it and its copies were not there, and these, for a
        leave-one-out score: a normal distance must not come from itself, or it would look
        better than a new image does.
    """
    expected = expected_distances(
        matches, normal, layout, share=share, around=around, without=without
    )
    more: Floats = np.maximum(distances - expected, 0)
    return more / np.float32(unit)


def expected_distances(
    matches: Ids,
    normal: Floats,
    layout: Layout,
    *,
    share: float = SHARE,
    around: int = AROUND,
    without: Sequence[int] = (),
) -> Floats:
    """Return what is taken off a distance to each match, float32 [...]; see `contrast`."""
    expected: Doubles = np.zeros(matches.shape)
    steps = range(-around, around + 1)
    for down, right in product(steps, steps):
        own = normal[layout.beside(matches, down, right)]
        gone = np.isin(own[..., 1], without) if len(without) else False
        expected += np.where(gone, own[..., 2], own[..., 0])
    expected *= share / len(steps) ** 2
    return expected.astype(np.float32)
