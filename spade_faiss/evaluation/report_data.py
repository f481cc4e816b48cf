"""What a report shows of one category besides its figures: curves, scores, the worst misses."""

from __future__ import annotations

from typing import Any

from .._support.text import printable
from ..errors import SpadeError
from ..metrics import Curve, roc_curve
from ..report.charts import thinned
from .confusion import ConfusionCounter
from .localisation import Localisation
from .misses import WorstMisses
from .scorer import Scorer

Points = tuple[list[float], list[float]]
"""A curve's x and y."""


def report_data(
    scorer: Scorer,
    localisation: Localisation,
    counter: ConfusionCounter,
    misses: WorstMisses,
    max_fpr: float,
) -> dict[str, Any]:
    """Return what a report shows of the test images, as JSON values.

    Parameters
    ----------
    scorer, counter, misses
        They have taken the same images.
    localisation : Localisation
        Of the scorer.
    max_fpr : float in (0, 1]
        The false-positive rate up to which PRO's curve goes.

    Raises
    ------
    SpadeError
        If no curve is defined.
    """
    scores = {"map": scorer.peaks, "descriptor": scorer.descriptor_scores, "mean": scorer.means}
    try:
        curves = _curves(scorer, max_fpr)
        limit = scorer.pixels.compute().pixel_best_threshold if scorer.pixels else None
    except ValueError as error:
        raise SpadeError(f"no metric is defined: {error}") from None
    return {
        "curves": curves,
        "scores": scores,
        "labels": [int(label) for label in scorer.labels],
        "clips": _clips(scorer),
        "pixel_threshold": limit,
        "judged": None
        if counter.threshold is None
        else {"score": counter.score, "threshold": counter.threshold, "scores": counter.scores},
        "misses": misses.cards(scores, scorer.labels, limit),
        "aupimo": localisation.aupimo,
    }


def _clips(scorer: Scorer) -> list[dict[str, Any]]:
    """Return the clips that frames are of: the frames' numbers, and their places among all."""
    clips: dict[str, list[tuple[int, int]]] = {}
    for place, (clip, number) in enumerate(scorer.places):
        clips.setdefault(clip, []).append((number, place))
    return [
        {"name": printable(clip), "numbers": numbers, "places": places}
        for clip, found in clips.items()
        for numbers, places in [zip(*sorted(found), strict=True)]
    ]


def _curves(scorer: Scorer, max_fpr: float) -> dict[str, Points]:
    """Return the curves whose areas are the metrics, by the metrics' names."""
    curves = {
        "image_rocauc_map_max": _points(roc_curve(scorer.peaks, scorer.labels)),
        "image_rocauc_map_mean": _points(roc_curve(scorer.means, scorer.labels)),
        "image_rocauc": _points(roc_curve(scorer.descriptor_scores, scorer.labels)),
    }
    if pixels := scorer.pixels:
        curves["pixel_rocauc"] = _points(pixels.roc_curve())
        curves["pro"] = _points(pixels.pro_curve(), max_fpr)
    return curves


def _points(curve: Curve, right: float = 1.0) -> Points:
    return thinned(curve.fpr, curve.hit, right)
