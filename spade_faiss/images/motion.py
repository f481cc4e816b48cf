"""How fast each place of a frame moves, by a frame that was shown before it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ..types import Floats

GAP = 0.1
"""Seconds from a frame back to the one that its motion is seen by."""
CELL = 8
"""Input pixels a side of a cell, in which speeds are averaged."""
CHANNELS = 4
"""To the right, to the left, downwards and upwards."""


def motion_shape(size: tuple[int, int]) -> tuple[int, int, int]:
    """Return the shape of what `motion_of` returns of an input of a height and width."""
    return -(-size[0] // CELL), -(-size[1] // CELL), CHANNELS


def motion_of(before: npt.NDArray[np.uint8], now: npt.NDArray[np.uint8], seconds: float) -> Floats:
    """Return how fast each cell of an image moves, in pixels a second.

    The optical flow is that of dense inverse search (Kroeger et al., *Fast Optical Flow using
    Dense Inverse Search*, ECCV 2016), with OpenCV's preset for medium speed.

    Parameters
    ----------
    before, now : uint8 [h, w, 3], RGB
    seconds : float
        From one to the other; if it is not above 0, nothing moves.

    Returns
    -------
    float32 [ceil(h / 8), ceil(w / 8), 4], 0 or more
        Means over a cell of the speed to the right, to the left, downwards and upwards.
    """
    height, width, channels = motion_shape((now.shape[0], now.shape[1]))
    if not seconds > 0:
        return np.zeros((height, width, channels), np.float32)
    grey = [cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in (before, now)]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = search.calc(grey[0], grey[1], None)  # type: ignore[call-overload]
    ways = np.concatenate([np.maximum(flow, 0), np.maximum(-flow, 0)], axis=2)[..., [0, 2, 1, 3]]
    cells = cv2.resize(ways, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cells / seconds, np.float32)
