"""From an anomaly map to one figure of its image."""

from __future__ import annotations

import cv2
import numpy as np

from ..types import Doubles, Floats, Mask

ORDER = 8
"""Of the power mean: 1 is the mean, infinity the maximum."""


def power_mean(
    values: Floats, order: int = ORDER, *, looked_at: Mask | None = None, window: int | None = None
) -> float:
    """Return the power mean of a map, `(mean of values ** order) ** (1 / order)`.

    It lies between the mean and the maximum, so that a large weak defect counts, and a small
    strong one still does. Of a defect on a share s of the pixels it is s ** (1 / 8) of the
    maximum or more: 0.42 of it for a thousandth of them.

    Parameters
    ----------
    values : float32 [h, w]
        Of all pixels that the network saw, and of no others. One below 0, which no map of
        distances has, counts as 0: an even power would take it for one above.
    order : int, 1 or more
    looked_at : bool [h, w], optional
        The pixels that count; by default all. Within a window, the others count as 0.
    window : int, optional
        The side of a square, which fits into the map: the largest mean over such a square
        wherever it lies is returned, so that a flaw counts as much in a large picture as in a
        small one.

    Returns
    -------
    float
        By float64, 0 or more. Of a map that is twice as high it is twice as much.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.zeros((10, 10), np.float32)
    >>> values[4, 4] = 2.0
    >>> round(power_mean(values), 3), round(power_mean(values, 1), 3)
    (1.125, 0.02)
    """
    top = float(values.max())
    if top <= 0:
        return 0.0
    shares = np.divide(values, top, dtype=np.float64)  # of the maximum, lest a power overflows
    powers = _power(np.maximum(shares, 0, out=shares), order)
    if window is not None:
        mean = _largest_mean(powers if looked_at is None else powers * looked_at, window)
    else:
        mean = float(powers.mean() if looked_at is None else powers[looked_at].mean())
    return float(top * mean ** (1 / order))


def _power(values: Doubles, order: int) -> Doubles:
    """Return a whole power, 1 or more, by squares: in half of the time of `np.power`."""
    result: Doubles | None = None
    while order > 1:
        if order % 2:
            result = values if result is None else result * values
        values, order = values * values, order // 2
    return values if result is None else result * values


def _largest_mean(values: Doubles, window: int) -> float:
    """Return the largest mean over a square within an array, [h, w], 0 or more."""
    sums = cv2.boxFilter(
        values, cv2.CV_64F, (window, window), anchor=(0, 0), borderType=cv2.BORDER_ISOLATED
    )
    rows, columns = (side - window + 1 for side in values.shape)
    return max(0.0, float(sums[:rows, :columns].max()))
