"""From the distances of each pyramid level to one anomaly map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from ..types import Floats, Mask


def anomaly_map(
    distances: Sequence[Floats],
    size: tuple[int, int],
    sigma: float = 4.0,
    looked_at: Sequence[Mask] | None = None,
) -> Floats:
    """Return the anomaly map of one image on the network's input grid.

    Each level is brought to the input's size bilinearly, the levels are averaged, and the
    mean is smoothed by a Gaussian (SPADE, sections 3.3 and 4.1).

    Parameters
    ----------
    distances : sequence of float32 [h, w]
        Per level, each patch's distance to its nearest gallery patches, 0 or more.
    size : (int, int)
        Height and width of the network's input, in pixels.
    sigma : float
        Standard deviation of the Gaussian in input pixels, cut off at 4 sigma; 0 leaves
        the map as it is.
    looked_at : sequence of bool [h, w], optional
        Per level, the patches that count: what others have is left out of every mean. By default
        all.

    Returns
    -------
    float32 [H, W], 0 or more

    Raises
    ------
    ValueError
        If sigma is below 0, or no finite number.

    Examples
    --------
    >>> import numpy as np
    >>> level = np.zeros((4, 4), np.float32)
    >>> level[1, 1] = 1
    >>> values = anomaly_map([level], (32, 32))
    >>> values.shape, np.unravel_index(values.argmax(), values.shape)[0] in (11, 12)
    ((32, 32), True)
    """
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma {sigma} must be a finite number, 0 or more")
    mean = _smoothed(distances, size, sigma)
    if looked_at is not None:
        shares = _smoothed([one.astype(np.float32) for one in looked_at], size, sigma)
        np.divide(mean, shares, out=mean, where=shares > 0)
    return mean


def _smoothed(levels: Sequence[Floats], size: tuple[int, int], sigma: float) -> Floats:
    """Return the mean of levels brought to a size, smoothed."""
    mean: Floats = np.zeros(size, np.float32)
    for level in levels:
        mean += cv2.resize(level, size[::-1], interpolation=cv2.INTER_LINEAR)
    mean /= len(levels)
    if sigma > 0:
        side = 2 * int(4 * sigma + 0.5) + 1
        cv2.GaussianBlur(mean, (side, side), sigma, dst=mean, borderType=cv2.BORDER_REFLECT)
    return mean
