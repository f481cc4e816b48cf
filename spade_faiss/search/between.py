"""How far one image's patches are from another's."""

from __future__ import annotations

import torch
from torch import Tensor

from .nearest import nearest

_SIDE = 7
"""Patches along each side that an image is compared by, at most."""


def between_images(queries: Tensor, others: Tensor) -> Tensor:
    """Return how far an image is from each of several others.

    That is the median, over a grid of its patches, of the Euclidean distance to the nearest patch
    of the other image: half of the patches may show something else.

    Parameters
    ----------
    queries : float32 [h, w, C]
    others : float32 [m, h * w, C]

    Returns
    -------
    float32 [m]
    """
    h, w, channels = queries.shape
    some = queries[:: -(-h // _SIDE), :: -(-w // _SIDE)].reshape(-1, channels)
    near = [nearest(some, one)[0][:, 0].sqrt().median() for one in others]
    return torch.stack(near) if near else torch.empty(0)
