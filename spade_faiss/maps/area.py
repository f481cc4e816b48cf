"""The largest value that an area of a map reaches: a score that single hot spots do not raise."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from ..types import Floats, Mask

_FURTHER = 4
"""How many times as many of the highest pixels are looked at next, until an area is found."""


def area_peak(values: Floats, pixels: int) -> float:
    """Return the largest value that all pixels of some connected area of so many pixels reach.

    It is the maximum of the map's area opening (Vincent, *Grayscale area openings and closings*,
    1993), found without the opening: an area of pixels that reach a value is one of pixels that
    reach any lower one, so that bisection over the map's values finds the largest.

    Parameters
    ----------
    values : float32 [h, w]
    pixels : int, 1 or more
        Neighbours in all eight directions are connected.

    Returns
    -------
    float
        A value of the map; its smallest where the map has no more than so many pixels.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.zeros((6, 6), np.float32)
    >>> values[1, 1] = 9
    >>> values[3:5, 2:5] = 4
    >>> [area_peak(values, pixels) for pixels in (1, 2, 6, 7)]
    [9.0, 4.0, 4.0, 0.0]
    """
    n = values.size
    if pixels <= 1 or pixels >= n:
        return float(values.max() if pixels <= 1 else values.min())
    ordered = values.ravel().copy()
    count, end = pixels, n  # what lies from `end` on is in order already, and higher
    above = np.inf  # no area reaches this value
    while True:
        at = n - count
        ordered[:end].partition(at)
        low = ordered[at]
        if low < above:
            kept = _areas(values, low, pixels)
            if kept is not None:
                break
            above = low
        count, end = min(count * _FURTHER, n), at
    between = np.unique(kept[(kept > low) & (kept < above)])
    first, last = -1, len(between)  # an area reaches the one, and none the other
    while last - first > 1:
        middle = (first + last) // 2
        found = _areas(kept, between[middle], pixels)
        if found is None:
            last = middle
        else:
            first, kept = middle, found
    return float(low if first < 0 else between[first])


def _areas(values: Floats, low: np.floating[Any], pixels: int) -> Floats | None:
    """Return the part of a map where areas of so many pixels reach a value; None without any.

    Other pixels of it are minus infinity.
    """
    reached = (values >= low).view(np.uint8)
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(reached, connectivity=8)
    large = boxes[:, cv2.CC_STAT_AREA] >= pixels
    large[0] = False  # what does not reach it
    if not large.any():
        return None
    left, top, width, height = boxes[large, :4].T
    box = np.s_[top.min() : (top + height).max(), left.min() : (left + width).max()]
    inside: Mask = large[labels[box]]
    return np.where(inside, values[box], values.dtype.type(-np.inf))
