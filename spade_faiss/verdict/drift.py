"""Say whether the good images of a batch still look like those of the calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..types import Doubles, Ids
from .judge import over

LEVEL = 0.01
"""Share of batches, at most, that are warned of though nothing has changed."""
CLEAR = 2 / 3
"""Share of pairs from which on a difference is worth a warning."""


@dataclass(frozen=True)
class Drift:
    """How a batch compares with the good images of the calibration.

    Attributes
    ----------
    images, over : int
        Images of the batch, and those over the threshold.
    reference : int
        Good images of the calibration.
    effect, score_effect : float or None
        In what share of the pairs of a batch's image and a calibration's, both under the
        threshold, the batch's is farther from the index's images (by its descriptor), and has the
        higher score; 0.5 is no difference. None where there are too few pairs to tell.
    apart : float or None
        The same along the line on which both together differ most, so at least about 0.5.
    p_value : float or None
        Of the test that both are distributed as they were.
    warned : bool
    text : str
        One line that says what was found.
    """

    images: int
    over: int
    reference: int
    effect: float | None
    score_effect: float | None
    apart: float | None
    p_value: float | None
    warned: bool
    text: str


def detect_drift(
    batch: npt.ArrayLike,
    reference: npt.ArrayLike,
    threshold: float,
    batch_descriptors: npt.ArrayLike,
    reference_descriptors: npt.ArrayLike,
) -> Drift:
    """Compare a batch with good images.

    A batch may hold defects, so only images under the threshold are compared, of both sides,
    which leaves equal distributions equal. Compared are their descriptor scores, since light, focus
    and position change the whole image, and their scores, which a change may also lower: darker
    images of the demo's textures are farther from the index's by their descriptors, and have less
    high maxima in their maps. The test is Hotelling's for two samples, of both scores together, on
    ranks put as quantiles of a normal distribution, so that a few outliers weigh little.

    Where more than half of the batch is over the threshold, and that is more than of the
    calibration (Fisher's exact test), a warning is given, too: then there are few good images,
    or good ones are no longer called good. Each test takes half of `LEVEL`.

    Parameters
    ----------
    batch, reference : float [m], [n]
        The scores that decide.
    threshold : float
    batch_descriptors, reference_descriptors : float [m], [n]
        The same images' descriptor scores.

    Raises
    ------
    ValueError
        If a score is NaN, or lengths differ.

    Examples
    --------
    >>> import numpy as np
    >>> good, later = np.linspace(1, 2, 20), np.linspace(1.6, 2.6, 20)
    >>> found = detect_drift(good, good, 3.0, later, good)
    >>> found.warned, round(found.effect, 2)
    (True, 0.91)
    """
    sides = _pairs(batch, batch_descriptors), _pairs(reference, reference_descriptors)
    m, n = sides[0].shape[1], sides[1].shape[1]
    high, high_before = (int(over(scores, threshold).sum()) for scores, _ in sides)
    # The threshold may be one of the calibration's own scores, which would weigh on its side.
    here, before = (side[:, side[0] < threshold] for side in sides)
    found = hotelling(here, before)
    if 2 * high > m and p_of_more(high, m, high_before, n) < LEVEL / 2:
        warned, text = (
            True,
            (
                f"{high} of {m} images are over the threshold: they are wrong, or good ones look "
                "otherwise than the calibration's (light, focus, position); look at some"
            ),
        )
    else:
        warned = found is not None and found.p_value < LEVEL / 2 and found.apart >= CLEAR
        text = _said(found, here.shape[1], before.shape[1], warned=warned)
    effect, score_effect, apart, p_value = found or (None, None, None, None)
    return Drift(m, high, n, effect, score_effect, apart, p_value, warned, text)


def _pairs(scores: npt.ArrayLike, descriptors: npt.ArrayLike) -> Doubles:
    """Return scores and descriptor scores, [2, n]."""
    both = np.stack([np.asarray(scores, np.float64), np.asarray(descriptors, np.float64)])
    if np.isnan(both).any():
        raise ValueError("scores hold NaN")
    return both


def _said(found: Difference | None, here: int, before: int, *, warned: bool) -> str:
    """Return what the test says of so many images under the threshold, and of so many before."""
    if found is None:
        return f"no telling from {here} images under the threshold and the calibration's {before}"
    far, high = found.effect, found.score_effect
    how = (
        f"{'farther from' if far > 0.5 else 'nearer to'} the index's images in "
        f"{100 * max(far, 1 - far):.0f} % of pairs, scores "
        f"{'higher' if high > 0.5 else 'lower'} in {100 * max(high, 1 - high):.0f} %, "
        f"p = {found.p_value:.2g}"
    )
    if not warned:
        return f"none seen in the {here} images called good ({how})"
    return (
        f"the {here} images called good differ from the calibration's {before} ({how}): light, "
        "focus or position may have changed; look at some, and calibrate again"
    )


class Difference(NamedTuple):
    """What `hotelling` finds: `Drift` has the same names."""

    effect: float
    score_effect: float
    apart: float
    p_value: float


def hotelling(here: Doubles, before: Doubles) -> Difference | None:
    """Compare scores and descriptor scores [2, m] with [2, n]; None where p cannot be small.

    Hotelling's test is that of a regression of the side on the scores, whose share of explained
    variance has a beta distribution if there is no difference.
    """
    from scipy.special import betaincc, comb, ndtri

    m, n = here.shape[1], before.shape[1]
    if min(m, n) == 0 or 2 / comb(m + n, m) >= LEVEL / 2:
        return None
    ranks = np.stack([_ranks(one) for one in np.concatenate([here, before], axis=1)])
    normal = ndtri(ranks / (m + n + 1))
    normal -= normal.mean(axis=1, keepdims=True)
    side = np.r_[np.full(m, n), np.full(n, -m)] / (m + n)
    weights, _, rank, _ = np.linalg.lstsq(normal.T, side)  # the rank is 1 where both are the same
    fit = weights @ normal
    explained = min(max(float(fit @ side / (side @ side)), 0.0), 1.0)
    p_value = float(betaincc(rank / 2, (m + n - 1 - rank) / 2, explained)) if rank else 1.0

    def share(order: Doubles) -> float:
        """Return in what share of pairs the batch's is larger."""
        return float((order[:m].sum() - m * (m + 1) / 2) / (m * n))

    return Difference(share(ranks[1]), share(ranks[0]), share(_ranks(fit)), p_value)


def p_of_more(high: int, m: int, high_before: int, n: int) -> float:
    """Return p of Fisher's exact test that a batch has no more images over the threshold."""
    from scipy.special import gammaln

    def ways(of: int, some: Ids) -> Doubles:
        """Return the logarithms of how many ways there are to choose some of so many."""
        found: Doubles = gammaln(of + 1) - gammaln(some + 1) - gammaln(of - some + 1)
        return found

    total = high + high_before
    more = np.arange(high, min(m, total) + 1)
    chances = np.exp(ways(m, more) + ways(n, total - more) - ways(m + n, np.array([total])))
    return min(float(chances.sum()), 1.0)


def _ranks(values: Doubles) -> Doubles:
    """Return ranks from 1 on, [n]; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]
