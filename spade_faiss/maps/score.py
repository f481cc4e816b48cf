"""From an anomaly map to one figure of its image."""

from __future__ import annotations

import numpy as np

from ..types import Floats

ORDER = 8
"""Of the power mean: 1 is the mean, infinity the maximum."""


def power_mean(values: Floats, order: int = ORDER) -> float:
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
    mean = np.power(np.maximum(shares, 0), order).mean()
    return float(top * mean ** (1 / order))
