"""Metrics of one score an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import as_mask, as_scores
from .ranking import Curve, Ranking, rank


def image_rocauc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the area under the ROC curve, exactly.

    It is the chance that a defect scores above a good image, ties counted half
    (Mann-Whitney). Cost: one sort.

    Parameters
    ----------
    scores : real [n], finite
        One score an image, or any other thing that is good or not. An array or a tensor.
    labels : bool or integer [n]
        Not zero where the image shows a defect.

    Returns
    -------
    float, 0 to 1

    Raises
    ------
    ValueError
        If a score is NaN or infinite, the lengths differ, the labels are not boolean or
        integer, or only one class is there.

    Examples
    --------
    >>> image_rocauc([0.2, 0.9, 0.4, 0.4], [0, 1, 0, 1])
    0.875
    """
    return _rank(scores, labels).area()


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the sum over thresholds of precision times the recall gained there, 0 to 1.

    Parameters and errors as in `image_rocauc`. It is not interpolated (scikit-learn's
    `average_precision_score`).
    """
    return _rank(scores, labels).average_precision()


def best_f1(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[float, float]:
    """Return the greatest F1 over all thresholds, 0 to 1, and the lowest threshold reaching it.

    A score at or above the threshold is called a defect. The threshold is one of the defect
    scores. Parameters and errors as in `image_rocauc`.
    """
    return _rank(scores, labels).best_f1()


def roc_curve(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Curve:
    """Return the ROC curve: `fpr`, `hit` (the true-positive rate) and `thresholds`.

    Points inside a vertical or horizontal run are left out, which changes no line. Parameters
    and errors as in `image_rocauc`.
    """
    return _rank(scores, labels).curve()


def _rank(scores: Any, labels: Any) -> Ranking:
    scored, defect = as_scores(scores, "scores"), as_mask(labels, "labels")
    if scored.ndim != 1 or scored.shape != defect.shape:
        raise ValueError(
            f"scores {list(scored.shape)} and labels {list(defect.shape)} must both be [n]"
        )
    finite = np.isfinite(scored)
    if not finite.all():
        at = int(np.argmin(finite))
        raise ValueError(f"image {at}: the score is {scored[at]}; scores must be finite")
    good = scored[~defect]
    if not 0 < len(good) < len(scored):
        raise ValueError(
            f"{len(scored)} labels hold {len(scored) - len(good)} defects; both classes are needed"
        )
    return rank(np.sort(scored[defect]), [lambda: good], len(good))
