"""How much of an image a framing looks at."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from ..types import Mask
from .framing import Framing


def looked_at_on(framing: Framing, size: tuple[int, int]) -> Mask:
    """Return which pixels of an image of a height and width are looked at, bool [H, W]."""
    left, top, right, bottom = framing.seen(*size)
    looked = np.zeros(size, bool)
    looked[top:bottom, left:right] = True
    return looked & framing.roi.on(size) if framing.roi else looked


@lru_cache(1024)
def looked_at_pixels(framing: Framing, size: tuple[int, int]) -> int:
    """Return how many pixels of an image of a height and width are looked at."""
    if framing.roi:
        return int(np.count_nonzero(looked_at_on(framing, size)))
    left, top, right, bottom = framing.seen(*size)
    return (right - left) * (bottom - top)


def looked_at_share(framing: Framing, size: tuple[int, int]) -> float:
    """Return the share of an image's pixels, or of its region's, that is looked at, 0…1."""
    every = np.count_nonzero(framing.roi.on(size)) if framing.roi else size[0] * size[1]
    return looked_at_pixels(framing, size) / every


@lru_cache(1024)
def largest_area(framing: Framing, size: tuple[int, int]) -> int:
    """Return how many pixels the largest connected area of an image has that is looked at.

    Neighbours in all eight directions are connected.
    """
    if not framing.roi:
        return looked_at_pixels(framing, size)
    looked = looked_at_on(framing, size).view(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(looked, connectivity=8)
    return int(stats[1:, cv2.CC_STAT_AREA].max(initial=0))


@lru_cache(64)
def overlooked_pixels(framing: Framing, size: tuple[int, int]) -> int:
    """Return how many pixels lie in pieces of the region that are too narrow to be shown."""
    shown = framing.shown(size)
    if shown is None:
        return 0
    whole = replace(framing, roi=None)
    seen = whole.place(framing.inner(shown).astype(np.float32), size) > 0
    looked = looked_at_on(framing, size).view(np.uint8)
    count, pieces = cv2.connectedComponents(looked, connectivity=8)
    lost = np.setdiff1d(np.arange(1, count), pieces[seen])
    return int(np.count_nonzero(np.isin(pieces, lost)))
