"""A threshold from good images alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .rates import conformal_rank


def good_threshold(scores: npt.ArrayLike, quantile: float = 0.995) -> float | None:
    """Return the value that a new good image's score stays under with chance `quantile`.

    With many good scores this is their conformal quantile: the ceil((n + 1) q)-th smallest,
    which a new score from the same source exceeds with a chance of at most 1 - q, whatever
    its distribution (Vovk et al., *Algorithmic Learning in a Random World*, 2005). That rank
    exists only from n = q / (1 - q) on: 199 images at q = 0.995. With fewer, no
    distribution-free answer exists, and the sample's own quantile is merely its maximum,
    which a new good image exceeds with chance 1 / (n + 1): one in 51 for 50 images. There the
    upper prediction limit of a log-normal is taken, exp(m + t s sqrt(1 + 1/n)) with m and s
    the mean and standard deviation of the logarithms and t Student's quantile with n - 1
    degrees of freedom; it is exact for log-normal scores, which distances (positive, skewed)
    are close to, and it widens as n shrinks. It is never less than the largest good score.

    Parameters
    ----------
    scores : float [n]
        Leave-one-out scores of good images, 0 or more.
    quantile : float in (0, 1)

    Returns
    -------
    float or None
        None for fewer than two scores, which say nothing of their spread.

    Raises
    ------
    ValueError
        If the quantile is not between 0 and 1, or a score is NaN.

    Examples
    --------
    >>> good_threshold(range(1, 100), 0.9)  # the 90th of 99
    90.0
    >>> round(good_threshold([3.0, 4.0, 5.0], 0.9), 2)  # more than was seen
    6.84
    """
    ordered: npt.NDArray[np.float64] = np.sort(np.asarray(scores, np.float64))
    n = len(ordered)
    rank = conformal_rank(n, quantile)
    if np.isnan(ordered).any():
        raise ValueError("scores hold NaN")
    if n < 2:
        return None
    if rank <= n:
        return float(ordered[rank - 1])
    from scipy.stats import t as student

    logs = np.log(np.maximum(ordered, np.finfo(np.float32).tiny))
    spread = float(student.ppf(quantile, n - 1)) * logs.std(ddof=1) * math.sqrt(1 + 1 / n)
    limit = math.exp(min(float(logs.mean() + spread), 80.0))  # stays within float32
    return max(limit, float(ordered[-1]))


def calibration_sample(names: Sequence[str], count: int) -> npt.NDArray[np.int64]:
    """Return which images to draw thresholds from, ascending: all, or `count` of them.

    Those whose names' digests are the smallest: a fixed draw that has nothing to do with what
    the images show, and that mostly stays when images come and go.

    Parameters
    ----------
    names : sequence of str, n long
    count : int

    Returns
    -------
    int64 [min(n, count)]
    """
    if len(names) <= count:
        return np.arange(len(names))
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names]
    order = sorted(range(len(names)), key=lambda i: (digests[i], i))
    return np.sort(np.array(order[:count], np.int64))
