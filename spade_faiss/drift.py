"""Say whether the good images of a batch still look like those of the calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
    effect : float or None
        In what share of the pairs of a batch's image and a calibration's, both under the
        threshold, the batch's is farther from the index's images; 0.5 is no difference. None
        where there are too few pairs to tell.
    p_value : float or None
        Of Mann and Whitney's test, two-sided, of these pairs.
    warned : bool
    text : str
        One line that says what was found.
    """

    images: int
    over: int
    reference: int
    effect: float | None
    p_value: float | None
    warned: bool
    text: str


def compare(
    batch: npt.ArrayLike, reference: npt.ArrayLike, threshold: float,
    batch_descriptors: npt.ArrayLike, reference_descriptors: npt.ArrayLike,
) -> Drift:
    """Compare a batch with good images.

    A batch may hold defects, so only images under the threshold are compared, of both sides,
    which leaves equal distributions equal. What is compared is their descriptor scores, since
    light, focus and position change the whole image: on the demo's textures a blur of one pixel
    raises them in 93 to 100 % of pairs, and the map's maximum in 38 to 45 %. The test is Mann and
    Whitney's, on ranks, so that a few outliers weigh little.

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
    >>> found = compare(good, good, 3.0, later, good)
    >>> found.warned, round(found.effect, 2)
    (True, 0.91)
    """
    sides = []
    for scores, descriptors in ((batch, batch_descriptors), (reference, reference_descriptors)):
        both = np.stack([np.asarray(scores, np.float64), np.asarray(descriptors, np.float64)])
        if np.isnan(both).any():
            raise ValueError("scores hold NaN")
        sides.append(both)
    m, n = sides[0].shape[1], sides[1].shape[1]
    over, over_before = (int((scores > threshold).sum()) for scores, _ in sides)
    here, before = (own[scores < threshold] for scores, own in sides)
    effect, p_value = _mann_whitney(here, before)
    warned, text = True, ""
    if 2 * over > m and _more(over, m, over_before, n) < LEVEL / 2:
        text = (f"{over} of {m} images are over the threshold: they are wrong, or good ones look "
                "otherwise than the calibration's (light, focus, position); look at some")
    elif effect is None or p_value is None:
        warned = False
        text = (f"no telling from {len(here)} images under the threshold and the calibration's "
                f"{len(before)}")
    else:
        share = max(effect, 1 - effect)
        warned = p_value < LEVEL / 2 and share >= CLEAR
        how = (f"{'farther from' if effect > 0.5 else 'nearer to'} the index's images in "
               f"{100 * share:.0f} % of pairs, p = {p_value:.2g}")
        text = (f"the {len(here)} images called good differ from the calibration's {len(before)} "
                f"({how}): light, focus or position may have changed; look at some, and calibrate "
                "again" if warned else
                f"none seen in the {len(here)} images called good ({how})")
    return Drift(m, over, n, effect, p_value, warned, text)


def _mann_whitney(
    here: npt.NDArray[np.float64], before: npt.NDArray[np.float64]
) -> tuple[float | None, float | None]:
    """Return the share of pairs in which `here` is larger, and p; None where p cannot be small."""
    from scipy.special import comb
    from scipy.stats import mannwhitneyu

    m, n = len(here), len(before)
    if min(m, n) == 0 or 2 / comb(m + n, m) >= LEVEL / 2:
        return None, None
    found = mannwhitneyu(here, before)
    return float(found.statistic) / (m * n), float(found.pvalue)


def _more(over: int, m: int, over_before: int, n: int) -> float:
    """Return p of Fisher's exact test that a batch has no more images over the threshold."""
    from scipy.stats import fisher_exact

    table = [[over, m - over], [over_before, n - over_before]]
    return float(fisher_exact(table, alternative="greater").pvalue)
