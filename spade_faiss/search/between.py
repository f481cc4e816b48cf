"""How far one image's patches are from another's."""

from __future__ import annotations

from torch import Tensor

from .level import LevelSearch

_SIDE = 7
"""Patches along each side that an image is compared by, at most."""


def between_images(queries: Tensor, gallery: LevelSearch, images: Tensor) -> Tensor:
    """Return how far an image is from each of several others.

    That is the median, over a grid of its patches, of the Euclidean distance to the nearest patch
    of the other image: half of the patches may show something else.

    Parameters
    ----------
    queries : float32 [h, w, C]
    gallery : LevelSearch
        The patches of all images, of as many channels.
    images : int64 [m], one or more
        The others among them.

    Returns
    -------
    float32 [m]
    """
    h, w, channels = queries.shape
    some = queries[:: -(-h // _SIDE), :: -(-w // _SIDE)].reshape(1, -1, channels)
    near, _ = gallery.search(some.expand(len(images), -1, -1), images[:, None])
    return near[:, :, 0].sqrt().median(dim=1).values
