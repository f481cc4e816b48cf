"""Put channels on one scale: that of their own spread over good images."""

from __future__ import annotations

import numpy as np

from ..types import Doubles, Floats

_LEAST = 0.01
"""A channel's spread counts for no less than this part of the channels' root mean square."""


class Spread:
    """The standard deviation of channels, from rows that come in parts.

    Means and squared deviations of the parts are joined in float64 (Chan, Golub & LeVeque,
    1979), so that nothing is lost to cancellation.
    """

    def __init__(self) -> None:
        self._n = 0
        self._mean: Doubles = np.zeros(1)
        self._squares: Doubles = np.zeros(1)

    def add(self, rows: Floats) -> None:
        """Take in rows [n, C]."""
        n, mean = len(rows), rows.mean(0, np.float64)
        squares = np.square(rows - mean).sum(0)
        both = self._n + n
        apart = mean - self._mean
        self._squares = self._squares + squares + np.square(apart) * (self._n * n / both)
        self._mean = self._mean + apart * (n / both)
        self._n = both

    def std(self) -> Doubles:
        """Return each channel's standard deviation [C]."""
        return np.sqrt(self._squares / self._n)

    def factors(self, power: float = 1.0, *, alike: bool = False) -> Floats:
        """Return what to multiply the channels by, [C].

        A distance is then the root mean square, over channels, of the difference in standard
        deviations: levels with many channels weigh no more than those with few. A difference
        needs no mean taken off. Channels that hardly vary are not blown up without limit, and
        where none varies all are left as they are.

        Parameters
        ----------
        power : float, 0 to 1
            Of the standard deviation by which a channel is divided. At 0.5 (Pareto scaling) it
            counts for half, which suits where few rows leave the deviations uncertain.
        alike : bool
            Whether all channels are multiplied by the same, as those that are of one unit are: by
            their root mean square.
        """
        std = self.std()
        if alike:
            std = np.full_like(std, np.sqrt(np.square(std).mean()))
        least = _LEAST * np.sqrt(np.square(std).mean())
        if least == 0:
            return np.ones(len(std), np.float32)
        divisors = np.maximum(std, least) ** power * np.sqrt(len(std))
        scaled: Floats = (1 / divisors).astype(np.float32)
        return scaled
