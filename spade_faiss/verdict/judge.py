"""Scores meet thresholds here, and nowhere else."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..errors import SpadeError
from ..types import Mask

NG, REVIEW, OK, ERROR = "NG", "REVIEW", "OK", "ERROR"
VERDICTS = (NG, REVIEW, OK, ERROR)
"""Not good; for a person to look at; good; and what could not be judged."""


def verdict(score: float, threshold: float | None, review: float | None = None) -> str:
    """Return what a score says of its image.

    Parameters
    ----------
    score : float
    threshold : float or None
        A score above it is not good. None where it is unknown.
    review : float, optional
        Scores from this one to the threshold are for a person to look at.

    Returns
    -------
    "NG", "REVIEW", "OK", or "" where no threshold is known

    Raises
    ------
    ValueError
        If the score or the threshold is no number (nan): neither would be over the other.

    Examples
    --------
    >>> [verdict(score, 40.0, 30.0) for score in (29.9, 30.0, 40.0, 40.1)]
    ['OK', 'REVIEW', 'REVIEW', 'NG']
    """
    if threshold is None:
        return ""
    if math.isnan(score) or math.isnan(threshold):
        raise ValueError(f"score {score} and threshold {threshold} must be numbers")
    if score > threshold:
        return NG
    return OK if review is None or score < review else REVIEW


def over(values: npt.ArrayLike, threshold: float | None) -> Mask:
    """Say of each value whether it is over a threshold, as `verdict` would; none is over None.

    NumPy would round the threshold to the values' own precision first, and a pixel could be over
    it that the image's score is not.
    """
    values = np.asarray(values)
    if threshold is None:
        return np.zeros(values.shape, np.bool_)
    if values.dtype == np.float32:
        with np.errstate(over="ignore"):  # infinity is right for what is beyond float32
            near = np.float32(threshold)
            if float(near) > threshold:  # the largest float32 that is not over it serves as well
                near = np.nextafter(near, np.float32(-np.inf))
        return np.asarray(values > near)
    return np.asarray(values > threshold)


def check_limits(
    threshold: float | None,
    review: float | None,
    *,
    quantile: float | None = None,
    least: float = 0.0,
) -> None:
    """Refuse a threshold and a mark of review that mean nothing, alone or together.

    Parameters
    ----------
    threshold, review : float or None
        As `verdict` takes them.
    quantile : float in (0, 1), optional
        Share of good images that a threshold is to be drawn for.
    least : float
        No score is below it: 0 but for an ensemble's, which are standardised.

    Raises
    ------
    SpadeError
        If one is no finite number or below what a score can be, if the mark is not below the
        threshold, if the quantile is no such share, or if the threshold is both drawn and set.
    """
    if quantile is not None and not 0 < quantile < 1:
        raise SpadeError(f"quantile = {quantile} must lie between 0 and 1")
    for name, value in (("threshold", threshold), ("review", review)):
        if value is not None and not (math.isfinite(value) and value >= least):
            more = "" if math.isinf(least) else f", {least:g} or more, as scores are"
            raise SpadeError(f"{name} = {value:g} must be a finite number{more}")
    if threshold is not None and quantile is not None:
        raise SpadeError(
            "a quantile draws the threshold, and a threshold sets it: give one of the two"
        )
    if threshold is not None and review is not None and review >= threshold:
        raise SpadeError(
            f"review = {review:g} must be below the threshold, {threshold:.4g}: "
            "scores from it to the threshold are to be reviewed"
        )
