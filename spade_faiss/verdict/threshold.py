"""A threshold from good images alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import Doubles, Mask

LEAST_RATE, MOST_RATE = 0.005, 0.05
"""Between these lies the rate of false alarms that is aimed at where none is asked for."""
FENCE = 3.5
"""Standard deviations of the logarithms, from their median, beyond which a score is an outlier."""
SPREAD, SPREAD_IMAGES = 0.12, 2
"""The standard deviation of good scores' logarithms to start from, and for how many images that
counts: it is 0.05 to 0.21 for seven kinds of parts."""
SKEW_IMAGES = 100
"""For how many images it counts that logarithms are not skew."""
LARGEST = math.log(np.finfo(np.float64).max)
"""The logarithm of the largest threshold: scores may differ by more than numbers hold."""


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
    `FENCE` standard deviations from the median is an outlier: a part that is not good, a black
    frame, or, far below, a copy that nobody noticed.

    - Where the conformal rank (Vovk et al., *Algorithmic Learning in a Random World*, 2005) is
      that of a score which is no outlier and not the largest, the threshold is that score. A new
      good image exceeds it with a chance of at most 1 - q, whatever the distribution. It takes
      `images_needed(q, spare=1)` images.
    - Else it is Student's upper prediction limit of the logarithms, corrected for skewness
      (Cornish & Fisher, 1938), but at least the score of the highest rank that would do.

    So a stricter quantile never gives a lower threshold, and one score moves it little.
    `docs/threshold.md` has the formula, and what a threshold is worth.

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
    q = aimed_quantile(float(each.sum())) if quantile is None else quantile
    near = _no_outliers(values, each)
    n = float(each[near].sum())
    if n < 1.5:
        return Threshold(None, q, n)
    outliers = np.flatnonzero(~near & (values > np.median(values[near])))
    ranked, holds = _ranked(values, each, near, q)
    value = ranked if holds else max(ranked, _limit(np.log(values[near]), each[near], q))
    return Threshold(value, q, n, tuple(outliers.tolist()))


def good_threshold(
    scores: npt.ArrayLike, quantile: float | None = None, weights: npt.ArrayLike | None = None
) -> float | None:
    """Return the value of `draw_threshold`."""
    return draw_threshold(scores, quantile, weights).value


def _no_outliers(values: Doubles, weights: Doubles) -> Mask:
    """Return which scores are near the others; none if half of them or more are 0."""
    positive = values > 0
    if 2 * weights[positive].sum() <= weights.sum() * (1 + 1e-8):
        return np.zeros(len(values), bool)
    logs = np.log(values, where=positive, out=np.full(len(values), -np.inf))
    apart = np.abs(logs - math.log(_median(values, weights)))
    spread = _pooled((1.4826 * _median(apart, weights)) ** 2, float(weights.sum()))
    return np.asarray(apart <= FENCE * spread)


def _median(values: Doubles, weights: Doubles) -> float:
    """Return the weighted median; of two in the middle, their mean."""
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    low, high = np.searchsorted(share, (0.5 - 1e-9, 0.5 + 1e-9))
    return float(values[order[[low, min(high, len(order) - 1)]]].mean())


def _pooled(variance: float, n: float) -> float:
    """Return a standard deviation, averaged with the one to start from."""
    freedom = max(n - 1, 0)
    return math.sqrt((SPREAD_IMAGES * SPREAD**2 + freedom * variance) / (SPREAD_IMAGES + freedom))


def _ranked(values: Doubles, weights: Doubles, near: Mask, quantile: float) -> tuple[float, bool]:
    """Return the score of the conformal rank, or of the nearest rank that would do, and which.

    A rank does if its score is no outlier, and those above it that are none stand for one
    independent image or more. Of a rank that is too low, the least score that is no outlier holds
    the rate, too. Where no rank would do, the score is 0.
    """
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    first, last = np.flatnonzero(near[order])[[0, -1]]
    highest = int(np.searchsorted(below, below[last] - 1 + 1e-9, side="right")) - 1
    if highest < first:
        return 0.0, False
    at = int(np.searchsorted(below, (below[-1] + 1) * quantile - 1e-9))
    return float(values[order[np.clip(at, first, highest)]]), at <= highest


def _limit(logs: Doubles, weights: Doubles, quantile: float) -> float:
    """Return the upper prediction limit of scores that have these logarithms."""
    from scipy.special import stdtrit  # scipy.stats would take longer to import than a query takes

    n = weights.sum()
    mean = np.average(logs, weights=weights)
    apart = logs - mean
    squares = float((weights * apart**2).sum())
    spread = _pooled(squares / (n - 1), n)
    skew = (weights * apart**3).sum() / n / max(squares / n, 1e-24) ** 1.5
    t = float(stdtrit(SPREAD_IMAGES + n - 1, quantile))
    lean = skew * n / (n + SKEW_IMAGES)
    if lean:  # beyond its turning point the correction would lead back
        t = min(t, -3 / lean) if lean < 0 else max(t, -3 / lean)
    t += lean * (t * t - 1) / 6
    return math.exp(min(mean + t * spread * math.sqrt(1 + 1 / n), LARGEST))
