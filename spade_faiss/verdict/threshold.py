"""A threshold from good images alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

LEAST_RATE, MOST_RATE = 0.005, 0.05
"""Between these lies the rate of false alarms that is aimed at where none is asked for."""
FENCE = 3.5
"""Standard deviations of the logarithms, from their median, beyond which a score is odd."""
SPREAD, SPREAD_IMAGES = 0.12, 2
"""The standard deviation of good scores' logarithms to start from, and for how many images that
counts: it is 0.05 to 0.21 for seven kinds of parts."""
SKEW_IMAGES = 100
"""For how many images it counts that logarithms are not skew."""


@dataclass(frozen=True)
class Threshold:
    """A threshold, and what it rests on.

    Attributes
    ----------
    value : float or None
        None where scores say nothing: of fewer than two images, or of images that are all alike.
    quantile : float
        The share of new good images that is to stay under it.
    images : float
        Independent images that it was drawn from: copies of one part count for one together.
    outliers : tuple of int
        Places of scores that are far above the others. It was drawn without them.
    """

    value: float | None
    quantile: float
    images: float
    outliers: tuple[int, ...] = ()


def aimed_quantile(images: float) -> float:
    """Return the share of good images that a threshold should let pass, if nobody says.

    The largest of n good scores is exceeded by one new good image in n + 1, whatever the scores'
    distribution, and no n images can show a lower rate. So 1 / (n + 1) is aimed at, within
    `LEAST_RATE` and `MOST_RATE`.

    >>> [round(1 - aimed_quantile(n), 4) for n in (5, 50, 1000)]
    [0.05, 0.0196, 0.005]
    """
    return 1 - min(max(1 / (images + 1), LEAST_RATE), MOST_RATE)


def draw_threshold(
    scores: npt.ArrayLike, quantile: float | None = None, weights: npt.ArrayLike | None = None
) -> Threshold:
    """Draw the value that a new good image's score stays under with chance `quantile`.

    Scores are distances, positive and skew, so their logarithms are taken. A score more than
    `FENCE` standard deviations from the median is odd: a part that is not good, a black frame, or,
    far below, a copy that nobody noticed. Median and median absolute deviation find them however
    large they are, as long as they are fewer than half. A threshold that is never under the largest
    good score would be hostage to them.

    - Where the rank that conformal prediction takes (the ceil((n + 1) q)-th smallest; Vovk et al.,
      *Algorithmic Learning in a Random World*, 2005) is that of a score which is not odd and not
      the largest, it is that score. A new good image exceeds it with a chance of at most 1 - q,
      whatever the distribution: from 399 images on at q = 0.995, 39 at 0.95.
    - Else it is an upper prediction limit of the logarithms of those that are not odd,
      m + t' s sqrt(1 + 1/n), with Student's t at q, and t' = t + g (t^2 - 1) / 6 for skewness g
      (Cornish & Fisher, 1938). Few images say little of s and less of g: s^2 is averaged with that
      of `SPREAD_IMAGES` more images of the spread `SPREAD`, which are degrees of freedom, too, and
      g counts n / (n + `SKEW_IMAGES`).

    One score moves it little: a single one of 20, whatever it is, by less than a third. New good
    images exceed it 0.8 to 1.25 times as often as is aimed at if scores are log-normal, by
    simulation for 2 to 200 images. Real scores are skewer, and exceed it up to 2.8 times as often:
    see `docs/threshold.md`.

    Parameters
    ----------
    scores : float [n], 0 or more
        Leave-one-out scores of good images, or of good images that are not in the index.
    quantile : float in (0, 1), optional
        By default `aimed_quantile` of the number of images.
    weights : float [n] in (0, 1], optional
        For how many independent images each one stands; see `spade_faiss.verdict.copies`.

    Raises
    ------
    ValueError
        If the quantile is not between 0 and 1, or a score is NaN.

    Examples
    --------
    >>> draw_threshold(range(1, 100), 0.9).value  # the 90th of 99
    90.0
    >>> drawn = draw_threshold([3.0, 4.0, 5.0, 70.0])
    >>> round(drawn.value, 2), drawn.outliers
    (6.4, (3,))
    """
    values = np.asarray(scores, np.float64)
    each = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if np.isnan(values).any():
        raise ValueError("scores hold NaN")
    if quantile is not None and not 0 < quantile < 1:
        raise ValueError(f"quantile {quantile} must lie between 0 and 1")
    near = _no_outliers(values, each)
    n = float(each[near].sum())
    q = aimed_quantile(float(each.sum())) if quantile is None else quantile
    if n < 1.5:
        return Threshold(None, q, n)
    center = np.median(values[near])
    outliers = tuple(np.flatnonzero(~near & (values > center)).tolist())
    ranked = _ranked(values, each, near, q)
    limit = _limit(np.log(values[near]), each[near], q) if ranked is None else ranked
    return Threshold(limit, q, n, outliers)


def good_threshold(
    scores: npt.ArrayLike, quantile: float | None = None, weights: npt.ArrayLike | None = None
) -> float | None:
    """Return the value of `draw_threshold`."""
    return draw_threshold(scores, quantile, weights).value


def _no_outliers(values: Values, weights: Values) -> npt.NDArray[np.bool_]:
    """Return which scores are near the others; none if half of them or more are 0."""
    if not len(values) or (middle := _median(values, weights)) <= 0:
        return np.zeros(len(values), bool)
    logs = np.log(np.maximum(values, middle * 1e-30))
    apart = np.abs(logs - math.log(middle))
    spread = _pooled((1.4826 * _median(apart, weights)) ** 2, float(weights.sum()))
    near: npt.NDArray[np.bool_] = apart <= FENCE * spread
    return near


def _median(values: Values, weights: Values) -> float:
    """Return the weighted median; of two in the middle, their mean."""
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    low, high = np.searchsorted(share, (0.5 - 1e-9, 0.5 + 1e-9))
    return float(values[order[[low, min(high, len(order) - 1)]]].mean())


def _pooled(variance: float, n: float) -> float:
    """Return a standard deviation, averaged with the one to start from."""
    freedom = max(n - 1, 0)
    return math.sqrt((SPREAD_IMAGES * SPREAD**2 + freedom * variance) / (SPREAD_IMAGES + freedom))


def _ranked(
    values: Values, weights: Values, near: npt.NDArray[np.bool_], quantile: float
) -> float | None:
    """Return the score of the conformal rank; None if it is odd, or no other is above it."""
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    at = int(np.searchsorted(below, (below[-1] + 1) * quantile - 1e-9))
    if at >= len(order) or not near[order[at]] or not near[order[at + 1 :]].any():
        return None
    return float(values[order[at]])


def _limit(logs: Values, weights: Values, quantile: float) -> float:
    """Return the upper prediction limit of scores that have these logarithms."""
    from scipy.stats import t as student

    n = weights.sum()
    mean = np.average(logs, weights=weights)
    apart = logs - mean
    squares = float((weights * apart**2).sum())
    spread = _pooled(squares / (n - 1), n)
    skew = (weights * apart**3).sum() / n / max(squares / n, 1e-24) ** 1.5
    t = float(student.ppf(quantile, SPREAD_IMAGES + n - 1))
    t += skew * n / (n + SKEW_IMAGES) * (t * t - 1) / 6
    return math.exp(mean + t * spread * math.sqrt(1 + 1 / n))
