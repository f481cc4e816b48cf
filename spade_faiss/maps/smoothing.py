"""From the distances of each pyramid level to one anomaly map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from ..types import Floats


def anomaly_map(distances: Sequence[Floats], size: tuple[int, int], sigma: float = 4.0) -> Floats:
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
    mean: Floats = np.zeros(size, np.float32)
    for level in distances:
        mean += cv2.resize(level, size[::-1], interpolation=cv2.INTER_LINEAR)
    mean /= len(distances)
    if sigma > 0:
        side = 2 * int(4 * sigma + 0.5) + 1
        cv2.GaussianBlur(mean, (side, side), sigma, dst=mean, borderType=cv2.BORDER_REFLECT)
    return mean
