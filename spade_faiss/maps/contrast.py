"""Local normalisation: judge a patch's distance by how far good patches there are from each other.

Where good parts vary much, every patch is far from its match; where they vary little, a small
distance tells of a flaw already. So from a patch's distance is taken half of its match's normal
distance: that to the nearest patch of the other good images. This is not in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import Floats, Ids

SHARE = 0.5
"""The part of the normal distance that is taken off."""
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


def contrast(
    distances: Floats, matches: Ids, normal: Floats, without: Sequence[int] = ()
) -> Floats:
    """Return distances less `SHARE` of the normal distances of their matches, 0 or more.

    Parameters
    ----------
    distances : float32 [h, w]
    matches : int64 [h, w]
        Rows of `normal`.
    normal : float32 [rows, 3]
        See `normal_distances`.
    without : sequence of int
        A good image that is judged as if it and its copies were not there, and these, for a
        leave-one-out score: a normal distance must not come from itself, or it would look
        better than a new image does.
    """
    own = normal[matches]
    expected = own[..., 0]
    if len(without):
        expected = np.where(np.isin(own[..., 1], without), own[..., 2], expected)
    more: Floats = np.maximum(distances - np.float32(SHARE) * expected, 0)
    return more
