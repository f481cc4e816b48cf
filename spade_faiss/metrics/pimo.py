"""AUPIMO: how much of each image's defect is found where good images raise hardly an alarm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..types import Doubles
from .collect import Images
from .ranking import WORKERS, Array

BOUNDS = (1e-5, 1e-4)
"""The false-positive rates between which AUPIMO is integrated, by its authors' choice."""


@dataclass(frozen=True)
class SharedRates:
    """The good images' mean false-positive rate, as a function of the threshold.

    Attributes
    ----------
    values : float [m], ascending
        The highest scores of the good images: at the lowest the rate is above any that is asked
        for.
    rates : float64 [m + 1], descending
        The rate at a threshold of each; the last is 0, above all of them.
    """

    values: Array
    rates: Doubles

    def area(self, scores: Array, bounds: tuple[float, float]) -> float:
        """Return the mean overlap of a defect between two rates, over the rate's logarithm, 0 to 1.

        Each of its pixels adds a step of its own, where the threshold passes its score, and the
        area under a step is known: no curve is built. Level with good scores the step is a ramp
        that is straight over the rate, as in ROC and PRO.

        Parameters
        ----------
        scores : float [n]
            Of the defect's pixels.
        bounds : (float, float)
            The lower and the upper rate.
        """
        lower, upper = bounds
        start = self.rates[np.searchsorted(self.values, scores, "right")]
        end = self.rates[np.searchsorted(self.values, scores, "left")]
        low, high = np.clip(start, lower, upper), np.clip(end, lower, upper)
        ramp = high - low - start * np.log1p((high - low) / low)
        ramp = ramp / np.where(end > start, end - start, 1)
        areas = (np.log(upper / high) + ramp) / np.log(upper / lower)
        return float(np.clip(areas, 0, 1).mean())


def aupimo_of(images: Images, bounds: tuple[float, float]) -> Doubles:
    """Return each image's AUPIMO, float64 [images]; NaN for good images.

    Raises
    ------
    ValueError
        If the bounds are no two rates in order, or there is no image with a defect or none
        without.
    """
    check_bounds(bounds)
    good = [i for i, found in enumerate(images.defects) if not found.regions]
    if len(good) == len(images.defects):
        raise ValueError(f"none of the {len(good)} masks holds a defect pixel")
    if not good:
        raise ValueError(f"all {len(images.defects)} masks hold defects: AUPIMO needs good images")
    shared = shared_rates(images.good, good, bounds[1])
    return np.array(
        [
            shared.area(found.scores, bounds) if found.regions else math.nan
            for found in images.defects
        ]
    )


def shared_rates(good: Callable[[int], Array], images: Sequence[int], upper: float) -> SharedRates:
    """Return the good images' mean false-positive rate, from 0 to above `upper`.

    Of each image only the scores are kept that can matter. At its own score of rank r from the
    top, the mean over n images of P pixels is r / (P n) or more, so that is beyond `upper` from
    rank P n `upper` on. Scores level with that one are kept, too: a tie must be counted whole.

    Parameters
    ----------
    good : callable
        Given an image's number, returns the scores of all its pixels.
    images : sequence of int
        The good images' numbers.
    upper : float
    """

    def highest(number: int) -> tuple[Array, int]:
        scores = good(number)
        rest = max(len(scores) - int(len(scores) * len(images) * upper) - 1, 0)
        return scores[scores >= np.partition(scores, rest)[rest]], len(scores)

    with ThreadPoolExecutor(WORKERS) as pool:
        found = list(pool.map(highest, images))
    values = np.concatenate([scores for scores, _ in found])
    pixels = np.concatenate([np.full(len(scores), size) for scores, size in found])
    order = np.argsort(values)
    values, pixels = values[order], pixels[order]
    rates = np.zeros(len(values) + 1)
    for size in np.unique(pixels):  # whole numbers are summed, so that no rate is rounded twice
        rates[:-1] += np.cumsum((pixels == size)[::-1])[::-1] / (size * len(images))
    return SharedRates(values, rates)


def check_bounds(bounds: tuple[float, float]) -> None:
    """Raise ValueError unless the bounds are two rates in order."""
    lower, upper = bounds
    if not 0 < lower < upper <= 1:
        raise ValueError(f"bounds {lower}, {upper} must be two rates, 0 < lower < upper <= 1")
