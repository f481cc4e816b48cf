"""Shares of images, and how far they can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass

CONFIDENCE = 0.95
"""How often an interval given here covers the true share, at least."""


@dataclass(frozen=True)
class Rate:
    """A share of images, and where the true share lies with 95 % confidence.

    Attributes
    ----------
    count, n : int
        Images counted, of how many.
    value : float
        The best single figure.
    low, high : float
    """

    count: int
    n: int
    value: float
    low: float
    high: float


def observed_rate(count: int, n: int) -> Rate:
    """Return the share of images that a threshold chosen without them calls wrong.

    The interval is Clopper and Pearson's (*Biometrika* 26, 1934): it covers the true share with
    a chance of 95 % or more for every share and every number of images.

    Raises
    ------
    ValueError
        Unless 0 <= count <= n and n >= 1.

    Examples
    --------
    >>> rate = observed_rate(2, 40)
    >>> rate.value, round(rate.low, 4), round(rate.high, 4)
    (0.05, 0.0061, 0.1692)
    """
    if not 0 <= count <= n or n < 1:
        raise ValueError(f"{count} of {n} images is no share")
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(count, n - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
    return Rate(count, n, count / n, low, high)


def expected_rate(count: int, n: int, quantile: float) -> Rate:
    """Return the false alarms to expect of `draw_threshold(scores, quantile)` of n good images.

    Of the images that it was chosen by, a threshold calls too few wrong (`count` of n), so the
    figure is not taken from them. It need not be: the share of new good images over the r-th
    smallest of n scores follows Beta(n - r + 1, r), over all samples of n, whatever the scores'
    distribution (if it is continuous; ties only lessen the share; Wilks, *Ann. Math. Statist.*
    12, 1941). `value` is its mean, (n - r + 1) / (n + 1), and `low` and `high` bound its middle
    95 %. Where n is too small for the rank, or the threshold calls more of the n wrong than the
    rank would, `value` and `high` are those of the largest score that is not over it, as upper
    bounds, and `low` is 0.

    Raises
    ------
    ValueError
        Unless 0 <= count <= n, n >= 1 and 0 < quantile < 1.

    Examples
    --------
    Of 19 scores the largest is exceeded by one new score in 20, though by none of the 19:

    >>> rate = expected_rate(0, 19, 0.95)
    >>> rate.value, round(rate.high, 3)
    (0.05, 0.176)
    """
    if not 0 <= count <= n or n < 1:
        raise ValueError(f"{count} of {n} images is no share")
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    rank = conformal_rank(n, quantile)
    above = max(n - min(rank, n), count) + 1
    is_rank = rank < n and count == n - rank
    low = float(betaincinv(above, n - above + 1, tail)) if is_rank else 0.0
    high = float(betaincinv(above, n - above + 1, 1 - tail))
    return Rate(count, n, above / (n + 1), low, high)


def conformal_rank(n: int, quantile: float) -> int:
    """Return the least r such that a new score exceeds the r-th smallest of n at most so often.

    That is, with a chance of at most 1 - quantile. No such score exists where r > n.

    Raises
    ------
    ValueError
        If the quantile is not between 0 and 1.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile {quantile} must lie between 0 and 1")
    # Guard against (n + 1) q landing a rounding error above a whole number.
    return max(1, math.ceil((n + 1) * quantile - 1e-9))


def images_needed(quantile: float, *, spare: int = 0) -> int:
    """Return from how many good images on a rank holds the rate, whatever their distribution.

    Parameters
    ----------
    quantile : float in (0, 1)
    spare : int
        How many scores there must be above that of the rank. Of none, the largest score itself
        may be the threshold; `draw_threshold` takes a rank only if there is another above.

    Examples
    --------
    >>> images_needed(0.995), images_needed(0.995, spare=1)
    (199, 399)
    """
    n = max(1, math.ceil((quantile + spare) / (1 - quantile) - 1e-6))
    while conformal_rank(n, quantile) > n - spare:
        n += 1
    while n > 1 and conformal_rank(n - 1, quantile) <= n - 1 - spare:
        n -= 1
    return n


def percent(rate: float) -> str:
    """Return a share as a person reads it."""
    return f"{100 * rate:.3g} %"
